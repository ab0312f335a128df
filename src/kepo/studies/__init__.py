"""Studies: arms x seeds x training modalities from one file, run here or printed for a cluster (`kepo study`).

`reading` makes a `schema.StudySpec` of the file, `plan` one run of each combination, `commands` the `kepo` commands of
a run, `runner` runs them here; they can be printed for a cluster. Every command can be repeated: what is done is not
done again.
"""
