import pytest


def test_tests_of_one_file_stay_in_one_process(request):
    """pytest-xdist says so by a suffix of the name; without it every process would make the small run anew."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("one process only: nothing to be spread")
    if not request.config.getvalue("loadgroup"):
        pytest.skip("tests are spread in another way than launch/test.sh does it")
    assert request.node.nodeid.endswith("@tests/test_xdist.py")
