"""The TRL adapter: everything that knows TRL from inside.

`TRLAdapter` gives public names to the private methods of TRL's `GRPOTrainer` that KEPO overrides or calls. A new TRL
release breaks here, and `changed_trl_names` says where.
"""

from kepo.trainer.adapter.forward import DistillationTarget
from kepo.trainer.adapter.names import changed_trl_names
from kepo.trainer.adapter.rewards import distinct_names, reward_names
from kepo.trainer.adapter.trl_adapter import TRLAdapter

__all__ = ["DistillationTarget", "TRLAdapter", "changed_trl_names", "distinct_names", "reward_names"]
