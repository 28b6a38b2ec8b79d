"""A user's own texts: what is wrong with the file, and how a model fares on what is right.

::

    file -> rows, streamed, each with what is wrong with it      rows, judge
         -> all defects; the distinct texts, or a sample          survey
         -> embeddings -> measures, neighbours, labels            health, labels
         -> a folder: page, tables, manifest                      drawing, page

:mod:`lab.report.command` is ``lab report``; notebook 12 calls the same functions.
"""
