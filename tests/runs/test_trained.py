from atspeed_jax.runs.pipeline import Run
from small import changed


def test_layers_lie_side_by_side_where_the_config_says_so(small_run, small_config):
    """Also of a finished run: the layout of the layers is no part of its fingerprint."""
    stacked = Run(small_config, small_run.workdir, None)
    apart = Run(changed(small_config, "decode.unroll", True), small_run.workdir, None)
    for run, named in ((stacked, "layers"), (apart, "layers_0")):
        decoders = run.decoders(run.draft_params)
        assert named in decoders.target_params
        assert named in decoders.draft_params
        assert decoders.step(decoders.target).unrolled == (run is apart)
        assert decoders.head is None  # of item prompts


def test_the_target_decodes_with_the_parameters_that_are_given(small_run):
    """Evaluation during training decodes with parameters that are stored nowhere yet."""
    models = small_run.run.models
    given = dict(models.target_params)
    assert models.decoders(None, target_params=given).target_params is given
    assert models.decoders(None).target_params is models.target_params
