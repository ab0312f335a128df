"""How a scene of PhantomVQA becomes pixels: canvas and body, lesions, and one painter per modality."""
