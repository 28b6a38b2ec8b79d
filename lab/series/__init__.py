"""Many runs from one YAML file: planned, swept, resumed, watched, compared, verified, cleaned.

The file is read by ``plan``, what is there by ``records``; ``sweep`` runs what is missing on one of
``executors``. Everything it knows is in the manifests of the runs: there is no database to lose.
"""
