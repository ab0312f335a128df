"""The built-in benchmark: base models for PhantomVQA, the arms, the demo and the study."""
