import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.planning.hlo import FLOPS, LOOPS, HloError, Kernels, read_program
from devices import report_of

ROWS, WIDTH, DEPTH = 16, 32, 5
TEXT = """HloModule m, num_partitions=8

%body (p: (s32[], f32[4,6])) -> (s32[], f32[4,6]) {
  %p = (s32[], f32[4,6]{1,0}) parameter(0)
  %x = f32[4,6]{1,0} get-tuple-element(%p), index=1
  %g = f32[6,6]{1,0} all-gather(%w), channel_id=1, replica_groups=GROUPS, dimensions={0}
  ROOT %t = (s32[], f32[4,6]{1,0}) tuple(%i, %x)
}

%at_most (x: f32[4,6]) -> f32[4,5] {
  %x.1 = f32[4,6]{1,0} parameter(0)
  ROOT %d = f32[4,5]{1,0} dot(%x.1, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%cheap (x: f32[4,6]) -> f32[4,5] {
  ROOT %x.2 = f32[4,5]{1,0} parameter(0)
}

ENTRY %main (a: f32[4,6]) -> f32[4,5] {
  %a = f32[4,6]{1,0} parameter(0)
  %w.1 = (s32[], f32[4,6]{1,0}) while(%a), condition=%cheap, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %r = (f32[2,2]{1,0}, bf16[4]{0}) all-reduce(%a, %a), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%cheap
  %s = f32[2]{0} reduce-scatter(%a), replica_groups=[2,4]<=[8], dimensions={0}, to_apply=%cheap
  %c = f32[2,8]{1,0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
  %e = f32[8]{0} all-to-all(%a), replica_groups={}, dimensions={0}
  ROOT %o = f32[4,5]{1,0} conditional(%i, %a, %a), branch_computations={%cheap, %at_most}
}
"""


def compiled(function, *shapes):
    return read_program(jax.jit(function).lower(*shapes).compile().as_text())


def test_kernels_are_operations_outside_of_fusions():
    fusion = "  %f = f32[4,6]{1,0} fusion(%a), kind=kLoop, calls=%at_most\n"
    without = read_program(TEXT).kernels()
    # A gather in a loop of three and four collectives; a product in a branch.
    assert without == Kernels(products=1, others=3 * 1 + 4)
    assert without.total == 8
    assert read_program(TEXT.replace("  %r =", fusion + "  %r =")).kernels() == without + Kernels(1, 0)
    assert read_program(
        TEXT.replace("  %r =", fusion.replace("at_most", "cheap") + "  %r =")
    ).kernels() == without + Kernels(0, 1)


@pytest.mark.parametrize(
    ("line", "kernels"),
    [
        ('custom-call(%a), custom_call_target="__cublas$lt$matmul"', Kernels(1, 0)),
        ('custom-call(%a), custom_call_target="__cublas$gemm"', Kernels(1, 0)),
        ('custom-call(%a), custom_call_target="__cub$DeviceRadixSort"', Kernels(0, 1)),
        ("copy-start(%a)", Kernels(0, 1)),
        ("copy-done(%a)", Kernels(0, 0)),  # it only waits
        ("dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={1}", Kernels(1, 0)),
    ],
)
def test_products_are_told_from_other_kernels(line, kernels):
    text = f"HloModule m\n\nENTRY %main (a: f32[4,4]) -> f32[4,4] {{\n  ROOT %k = f32[4,4]{{1,0}} {line}\n}}\n"
    assert read_program(text).kernels() == kernels


def test_kernels_are_subtracted_and_multiplied_part_by_part():
    assert (Kernels(7, 3) - Kernels(1, 2)) * 4 == Kernels(24, 4)


@pytest.mark.parametrize(
    ("groups", "n"),
    [
        ("[4,2]<=[8]", 2),
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("{}", 8),
        ("mesh['a'=4,'b'=2] {'b'}", 2),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a','b'}", 8),
        ("mesh['a'=8] {'a':(1)4}", 4),
    ],
)
def test_bytes_received_are_those_of_a_ring(groups, n):
    cost = read_program(TEXT.replace("GROUPS", groups)).cost()
    assert cost["all-gather"] == 3 * 6 * 6 * 4 * (n - 1) / n  # in a loop of three
    assert cost["all-reduce"] == 2 * (4 * 4 + 4 * 2) * 3 / 4
    assert cost["reduce-scatter"] == 2 * 4 * 3
    assert cost["collective-permute"] == 2 * 8 * 4
    assert cost["all-to-all"] == 8 * 4 * 7 / 8


def test_a_conditional_costs_one_of_its_branches():
    program = read_program(TEXT.replace("GROUPS", "{}"))
    assert program.cost(max)[FLOPS] == 2 * 4 * 5 * 6
    assert program.cost(min)[FLOPS] == 0
    assert program.cost()[LOOPS] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no ENTRY"),
        (TEXT.replace("GROUPS", "round"), "not known"),
        (TEXT.replace("all-gather(", "all-gather-start(").replace("GROUPS", "{}"), "only programs compiled for CPUs"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(HloError, match=message):
        read_program(text).cost()


def test_the_products_of_a_scan_count_as_often_as_it_runs():
    def layers(x, stacked):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stacked)[0].sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((ROWS, WIDTH), (DEPTH, WIDTH, WIDTH))]
    product = 2 * ROWS * WIDTH * WIDTH
    assert compiled(layers, *shapes).cost()[FLOPS] == DEPTH * product
    assert compiled(jax.grad(layers, (0, 1)), *shapes).cost()[FLOPS] == 3 * DEPTH * product


def test_a_loop_that_nobody_can_count_is_told():
    def until_small(x):
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x @ x, x)

    cost = compiled(until_small, jax.ShapeDtypeStruct((8, 8), jnp.float32)).cost()
    assert (cost[LOOPS], cost[FLOPS]) == (1, 2 * 8**3)


def test_programs_on_eight_devices():
    """Each by hand: see tests/helpers/eight_devices_hlo.py."""
    for name, (found, expected) in report_of("eight_devices_hlo.py", 8).items():
        assert found == expected, name
