"""Wrong answers to exercises: {notebook: {stub: what a student might write}}; no check takes them.

They are tried at the small parameters of ``test_notebooks.SMALL``, in the notebook's own kernel.
"""

WRONG = {
    "00_start_here": {
        "ex1-stub": [
            "answer = {'mean': 0.0, 'mean_without_first': 1.0}",
            # the model with the sink, which has nothing left to leave out
            "answer = {one.settings['pooling']: one.score.value for one in grid.evaluate(with_sink,"
            " pairs, poolings=['mean', 'mean_without_first'], layers=[middle], seed=seed)}",
        ]
    },
    "01_pooling_and_attention": {
        "ex1-stub": [
            "table_ = encoder_table[encoder_table['layer'] == last].pivot(index='pooling',"
            " columns='attention', values='value'); answer = (table_['native'] -"
            " table_['causal']).idxmax()",
        ],
        "ex2-stub": [
            # without the template
            "prompted_comparison = grid.contrast([one for one in test_cells if one.label in"
            " ('causal / last / last', 'causal / mean / last')], 'causal / mean / last',"
            " notebook=notebook, rng=rng, resamples=resamples)",
        ],
    },
    "02_anisotropy_measures": {
        "ex1-stub": [
            # no heavy tails
            "few, many = (anisotropy.measure(wide[:n], ['isoscore_corrected'])['value'].item()"
            " for n in (100, largest))",
        ],
        "ex2-stub": ["centred = anisotropy.measure(kept['decoder', 'last'].embeddings)"],
    },
    "03_anisotropy_repairs": {
        "ex1-stub": ["honest, transductive = 0.1, 0.2"],
        "ex2-stub": ["half, full = 0.1, 0.2"],
    },
    "04_length_collapse": {
        "ex1-stub": ["plain, centred = 1.5, 0.0"],
        "ex3-stub": ["sharper = known"],
    },
    "05_attention_temperature": {
        "ex1-stub": ["very_sharp, as_trained = 0.123, 0.234"],
        "ex2-stub": ["fast, slow = 0.1, 0.2"],
    },
    "06_long_context": {
        "ex1-stub": ["quarter, whole = 0.123, 0.234"],
        "ex3-stub": ["gap = 1 / 1000"],
    },
    "07_trained_pooling": {
        "ex1-stub": ["least_sets = 8", "least_sets = 10"],
        "ex2-stub": ["flattery = 1.0"],
    },
    "08_bench": {
        "ex1-stub": ["answer = ('mean', 'mean')", "answer = ('mean', 'no such pooling')"],
        "ex2-stub": ["pair = (-1.0, 1.0)"],
    },
    "09_attention_view": {"ex1-stub": ["answer = (1, 99)", "answer = (0, 0)", "answer = (1,)"]},
    "10_embedding_map": {"ex1-stub": ["share = 0.123"], "ex2-stub": ["plain = 0.123"]},
    "11_length_cloud": {"ex1-stub": ["spread = 2.0"]},
    "12_your_data": {"ex1-stub": ["answer = health.hubs()"]},
}
