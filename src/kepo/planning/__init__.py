"""How much GPU memory a recipe needs, before anything is loaded: `kepo plan`.

The formulas are pure functions of sizes; what they leave out is written in docs/plan.md. `architecture` reads sizes
from a model's config, `settings` from a recipe, `memory` adds them up, `advice` says what would make a run fit.
"""
