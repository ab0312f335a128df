"""PhantomVQA: procedural, medical-looking multiple-choice VQA whose truth, reasoning and hints are known exactly."""
