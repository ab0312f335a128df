"""How much GPU memory a recipe needs, before anything is loaded: `kepo plan`.

`architecture` reads sizes from a model's config, `settings` from a recipe, `memory` adds up what the formulas of
`activations` give. What they leave out is written in docs/plan.md.
"""
