"""The crash simulator: a whole pipeline on a broker in memory, in virtual time, under faults drawn from a seed.

It knows no sibling: `pipeline.rehearsal` builds the pipeline, and the command line joins the two. What it checks is the
list of invariants of the design (sections 6 and 7): nothing lost, one end for each job, nothing committed unsettled.
"""
