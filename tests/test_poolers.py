"""Every trainable pooling obeys the laws of its kind, and equals its formula written out."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from lab.poolers import (
    NV_EMBED,
    PAPER_CODE,
    POOLERS,
    Pooler,
    build,
    parameters,
    within,
)
from lab.pooling import POOLINGS, Tokens

DIM, NAN = 12, float("nan")
SMALL = {
    "cross_attention": {"latents": 3, "heads": 2},
    "latent_attention": {"latents": 5, "heads": 2},
    "self_attention": {"heads": 2},
    "low_rank_attention": {"heads": 3},
    "token_weights": {},
}
OF_ATTENTION = ["cross_attention", "latent_attention", "self_attention"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(params=sorted(POOLERS))
def name(request):
    """Every registered trainable pooling."""
    return request.param


def small(name, items=None, *, trained=True, **options):
    """A small pooler of dim 12, by default with all of its weights drawn anew."""
    pooler = build(name, DIM, items, **{**SMALL[name], **options})
    if trained:
        with torch.no_grad():
            for weight in pooler.parameters():
                weight.normal_()
    return pooler


def batch(sizes, *, left=0, right=0, filler=0.0):
    """States and mask; the content of a text depends on its place alone."""
    width = max(sizes) + left + right
    states = torch.full((len(sizes), width, DIM), filler)
    mask = torch.zeros(len(sizes), width, dtype=torch.bool)
    for text, size in enumerate(sizes):
        generator = torch.Generator().manual_seed(text)
        start = width - right - size if left else 0
        states[text, start : start + size] = torch.randn(size, DIM, generator=generator)
        mask[text, start : start + size] = True
    return states, mask


def close(one, other, tolerance=2e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def silence(pooler):
    """Zero what attention and feed-forward add to their residuals."""
    with torch.no_grad():
        pooler.block.attention.output.weight.zero_()
        pooler.block.feed_forward[1].output.weight.zero_()
        pooler.block.feed_forward[1].output.bias.zero_()
    return pooler


# --- laws of all -------------------------------------------------------------------------------


def test_every_pooler_is_tested():
    assert set(SMALL) == set(POOLERS)


@pytest.mark.parametrize(("left", "right"), [(0, 3), (3, 0), (2, 2)])
@pytest.mark.parametrize("filler", [7.0, NAN, float("inf")])
def test_padding_never_matters(name, left, right, filler):
    pooler = small(name)
    padded = pooler(*batch([4, 1, 6], left=left, right=right, filler=filler))
    assert padded.isfinite().all()
    close(padded, pooler(*batch([4, 1, 6])))


def test_a_text_alone_equals_the_text_in_a_batch(name):
    pooler, (states, mask) = small(name), batch([4, 1, 6])
    alone = [
        pooler(states[i : i + 1, :size], mask[i : i + 1, :size])
        for i, size in [(0, 4), (1, 1), (2, 6)]
    ]
    close(torch.cat(alone), pooler(states, mask))


def test_the_order_of_tokens_does_not_matter(name):
    pooler, (states, mask) = small(name), batch([6, 6])
    close(pooler(states[:, torch.randperm(6)], mask), pooler(states, mask))


def test_the_order_of_layers_matters(name):
    pooler, (states, mask) = small(name, items=6), batch([6, 6])
    assert (
        pooler(states[:, torch.arange(6).flip(0)], mask) - pooler(states, mask)
    ).abs().max() > 0.01


def test_one_layer_pools_as_one_token(name):
    pooler, (states, mask) = small(name, items=1, trained=False), batch([1, 1])
    assert pooler.item_embedding is None
    token = build(name, DIM, **SMALL[name])
    token.load_state_dict(pooler.state_dict())
    assert torch.equal(pooler(states, mask), token(states, mask))


def test_the_width_is_as_announced_and_the_inputs_are_left_untouched(name):
    pooler, (states, mask) = small(name), batch([3, 5], filler=2.0)
    copies = states.clone(), mask.clone()
    assert pooler(states, mask).shape == (2, pooler.out_dim)
    assert torch.equal(states, copies[0]) and torch.equal(mask, copies[1])


def test_half_precision_states_come_back_in_their_type_close_to_float32(name):
    pooler, (states, mask) = small(name, trained=False), batch([40, 7])
    states = states.to(torch.bfloat16)
    half = pooler(states, mask)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, pooler(states.float(), mask).to(torch.bfloat16))


def test_arithmetic_is_in_float32_under_autocast_and_when_the_pooler_is_halved(name):
    pooler, (states, mask) = small(name, trained=False), batch([40, 7])
    expected = pooler(states, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pooler(states, mask), expected)
    assert {weight.dtype for weight in pooler.half().parameters()} == {torch.float32}
    close(pooler(states, mask), expected, 1e-2)


def test_a_gradient_reaches_every_weight_and_only_items_that_count(name):
    pooler, (states, mask) = small(name, trained=False), batch([3, 5], filler=2.0)
    states.requires_grad_()
    (pooler(states, mask) * torch.randn(2, pooler.out_dim)).sum().backward()
    assert all(weight.grad.abs().max() > 1e-7 for weight in pooler.parameters())
    assert (states.grad[~mask] == 0).all() and (states.grad[mask] != 0).any(-1).all()


def test_a_gradient_reaches_the_embedding_of_every_layer(name):
    pooler, (states, mask) = small(name, items=5, trained=False), batch([5, 5])
    (pooler(states, mask) * torch.randn(2, pooler.out_dim)).sum().backward()
    assert (pooler.item_embedding.grad != 0).any(-1).all()


def test_unit_norm_is_an_option(name):
    pooled = small(name, normalise=True)(*batch([3, 5]))
    close(pooled.norm(dim=-1), torch.ones(2))
    close(pooled, normalize(small_again(name)(*batch([3, 5])), dim=-1))


def small_again(name):
    torch.manual_seed(0)
    return small(name)


def test_a_text_without_items_is_refused_by_its_place(name):
    states, mask = batch([3, 5])
    mask[1] = False
    with pytest.raises(ValueError, match="text 1 of 2 has no token to pool"):
        small(name)(states, mask)


def test_what_does_not_fit_is_refused(name):
    states, mask = batch([3, 5])
    with pytest.raises(ValueError, match=r"reads states \(batch, item, 12\); got \(2, 5, 11\)"):
        small(name)(states[..., 1:], mask)
    with pytest.raises(ValueError, match=r"reads states \(batch, 4, 12\); got \(2, 5, 12\)"):
        small(name, items=4)(states, mask)
    with pytest.raises(TypeError, match="do not fit"):
        small(name)(states, mask[:, 1:])
    with pytest.raises(ValueError, match="boolean"):
        small(name)(states, mask.long())
    with pytest.raises(LookupError, match=f"no option of {name} named 'latent'"):
        build(name, DIM, latent=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cross_attention", {"latents": 0}, "latents is a whole number, 1 or more; got 0"),
        ("latent_attention", {"latents": 2.0}, "latents is a whole number, 1 or more; got 2.0"),
        ("self_attention", {"heads": True}, "heads is a whole number"),
        ("self_attention", {"heads": 5}, "5 heads don't divide dim 12; give heads or dim_head"),
        ("cross_attention", {"dim_head": 0, "heads": 2}, "dim_head is a whole number"),
        ("cross_attention", {"ffn": -1, "heads": 2}, "ffn is a multiple of dim 12"),
        ("cross_attention", {"ffn": 0.01, "heads": 2}, "leaves no width"),
        ("cross_attention", {"heads": 2, "item_rows": 3, "items": 4}, "item_rows is 3, but .* 4"),
        ("token_weights", {"item_scale": -1.0}, "standard deviation, 0 or more; got -1.0"),
        ("token_weights", {"items": 0}, "items is a whole number, 1 or more; got 0"),
        ("low_rank_attention", {"heads": 1}, "no gradient with 1 head; give 2 or more"),
    ],
)
def test_an_option_out_of_range_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DIM, **options)


def test_an_unknown_pooler_is_an_error_that_names_the_nearest():
    with pytest.raises(LookupError, match="did you mean 'cross_attention'"):
        build("crossattention", DIM)


def test_a_pooler_is_added_in_one_place():
    class Middle(Pooler):
        def pool(self, states, tokens):
            return states[:, states.shape[1] // 2]

    POOLERS(Middle, "middle")
    try:
        states, mask = batch([5])
        assert torch.equal(build("middle", DIM)(states, mask), states[:, 2])
        assert within("middle", DIM, 0) == {}
    finally:
        del POOLERS._items["middle"]


# --- cross-attention (Tang & Yang) -------------------------------------------------------------


def heads_apart(weight, states, heads):
    """(heads, item, dim_head) of a projection without bias."""
    return torch.stack([states @ part.T for part in weight.chunk(heads)])


def by_hand(block, queries, context, heads, keep=None):
    """The block written out for one text: loops over heads and queries, softmax by exp."""
    plain = {key: value.detach() for key, value in block.state_dict().items()}

    def norm(x, key):
        spread = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (x - x.mean(-1, keepdim=True)) / spread * plain[f"{key}.weight"] + plain[
            f"{key}.bias"
        ]

    normed, source = norm(queries, "norm_queries"), norm(context, "norm_context")
    source = source if keep is None else source[keep]
    q, k, v = (
        heads_apart(plain[f"attention.{one}.weight"], states, heads)
        for one, states in (("query", normed), ("key", source), ("value", source))
    )
    rows = []
    for row in range(len(queries)):
        mixed = []
        for head in range(heads):
            weights = (k[head] @ q[head, row] / math.sqrt(q.shape[-1])).exp()
            mixed.append((weights / weights.sum()) @ v[head])
        rows.append(plain["attention.output.weight"] @ torch.cat(mixed))
    x = queries + torch.stack(rows)
    inner = norm(x, "feed_forward.0") @ plain["feed_forward.1.inner.weight"].T
    inner = inner + plain["feed_forward.1.inner.bias"]
    half = inner.shape[-1] // 2
    gate = inner[:, half:] * 0.5 * (1 + torch.erf(inner[:, half:] / math.sqrt(2)))
    out = (inner[:, :half] * gate) @ plain["feed_forward.1.output.weight"].T
    return x + out + plain["feed_forward.1.output.bias"]


@pytest.mark.parametrize("items", [None, 5])
def test_cross_attention_equals_the_published_head_written_out(items):
    pooler = small("cross_attention", items, dim_head=5, ffn=2, normalise=True)
    states, mask = batch([5, 5] if items else [5, 3], filler=3.0)
    found = pooler(states, mask)
    places = pooler.item_embedding.detach() if items else 0
    for text in range(2):
        latents = by_hand(
            pooler.block, pooler.latents.detach(), states[text] + places, 2, mask[text]
        )
        close(found[text], normalize(latents.mean(0), dim=0), 1e-4)


def test_latent_attention_equals_the_published_layer_written_out():
    pooler = small("latent_attention", dim_head=7, ffn=3)
    states, mask = batch([5, 3], filler=3.0)
    found = pooler(states, mask)
    for text in range(2):
        tokens = by_hand(pooler.block, states[text], pooler.latents.detach(), 2)
        close(found[text], tokens[mask[text]].mean(0), 1e-4)


@pytest.mark.parametrize("name", OF_ATTENTION)
def test_the_attention_is_that_of_torch(name):
    block = small(name).block
    stock = nn.MultiheadAttention(DIM, 2, bias=False, batch_first=True)
    ours = block.attention
    with torch.no_grad():
        stock.in_proj_weight.copy_(
            torch.cat([ours.query.weight, ours.key.weight, ours.value.weight])
        )
        stock.out_proj.weight.copy_(ours.output.weight)
    context, mask = batch([5, 3])
    queries = torch.randn(2, 4, DIM)
    expected, _ = stock(queries, context, context, key_padding_mask=~mask)
    close(ours(queries, context, mask), expected, 1e-4)


def test_with_one_item_queries_and_keys_of_cross_attention_have_no_gradient():
    pooler, (states, mask) = small("cross_attention", trained=False), batch([1, 1, 1])
    (pooler(states, mask) * torch.randn(3, DIM)).sum().backward()
    of = pooler.block.attention
    assert of.query.weight.grad.abs().max() < 1e-6 and of.key.weight.grad.abs().max() < 1e-6
    assert of.value.weight.grad.abs().max() > 0.1
    read = of(pooler.latents[None], states)
    close(read, of.output(of.value(states)).expand_as(read), 1e-6)


def test_with_two_items_queries_and_keys_of_cross_attention_have_a_gradient():
    pooler, (states, mask) = small("cross_attention", trained=False), batch([2, 2, 2])
    (pooler(states, mask) * torch.randn(3, DIM)).sum().backward()
    assert pooler.block.attention.query.weight.grad.abs().max() > 1e-4


def test_without_a_mask_as_in_the_code_pads_change_the_embedding():
    pooler = small("cross_attention", mask=False)
    plain = pooler(*batch([4, 4]))
    assert (pooler(*batch([4, 4], left=3, filler=1.0)) - plain).abs().max() > 0.05
    masked = small_again("cross_attention")
    close(plain, masked(*batch([4, 4])))


def test_the_item_embedding_is_added_to_the_states_of_its_layer():
    pooler, (states, mask) = small("cross_attention", items=4, item_rows=9), batch([4, 4])
    assert pooler.item_embedding.shape == (9, DIM)
    shifted = states + pooler.item_embedding[:4].detach()
    tokens = small("cross_attention")
    left_out = {k: v for k, v in pooler.state_dict().items() if k != "item_embedding"}
    tokens.load_state_dict(left_out)
    close(pooler(states, mask), tokens(shifted, mask))
    assert not torch.allclose(pooler(states, mask), tokens(states, mask), atol=1e-2)


def test_latents_and_item_embedding_start_as_in_the_code():
    pooler = build("cross_attention", 64, 200, latents=300)
    for drawn in (pooler.latents, pooler.item_embedding):
        assert drawn.mean().abs() < 0.03 and abs(drawn.std() - 1) < 0.03
    assert (build("token_weights", 64, 200).item_embedding == 0).all()


def test_a_silenced_cross_attention_is_a_constant():
    pooler = silence(small("cross_attention", normalise=True))
    pooled = pooler(*batch([4, 1, 6]))
    close(pooled, normalize(pooler.latents.mean(0), dim=0).expand(3, -1))


# --- latent and self-attention (NV-Embed) ------------------------------------------------------


@pytest.mark.parametrize("name", ["latent_attention", "self_attention"])
def test_silenced_latent_and_self_attention_are_mean_pooling(name):
    states, mask = batch([4, 1, 6], right=1, filler=5.0)
    close(silence(small(name))(states, mask), POOLINGS["mean"](states, Tokens(mask)))


def test_latent_attention_maps_each_token_by_itself():
    pooler, (states, mask) = small("latent_attention"), batch([6])
    mapped = pooler.block(states, pooler.latents[None])
    order = torch.randperm(6)
    close(pooler.block(states[:, order], pooler.latents[None]), mapped[:, order])
    each = torch.cat([pooler(states[:, i : i + 1], mask[:, :1]) for i in range(6)])
    close(each, mapped[0])


def test_self_attention_is_equivariant_and_does_not_map_each_token_by_itself():
    pooler, (states, mask) = small("self_attention"), batch([6])
    mapped, order = pooler.block(states, states), torch.randperm(6)
    close(pooler.block(states[:, order], states[:, order]), mapped[:, order])
    assert (pooler(states[:, :1], mask[:, :1]) - mapped[0, 0]).abs().max() > 0.1


def test_with_one_latent_the_attention_is_constant():
    pooler, (states, _) = small("latent_attention", latents=1), batch([6, 6])
    of = pooler.block.attention
    read = of(states, pooler.latents[None])
    close(read, of.output(of.value(pooler.latents)).expand_as(read))
    assert small("latent_attention").block.attention(states, states).std((0, 1)).max() > 0.1


def test_self_attention_of_one_head_without_feed_forward_by_hand():
    pooler, (states, mask) = small("self_attention", heads=1, ffn=0), batch([5])
    assert pooler.block.feed_forward is None
    h, block = states[0], pooler.block
    q, c = block.norm_queries(h), block.norm_context(h)
    w = {key: one.weight for key, one in block.attention.named_children()}
    weights = (q @ w["query"].T @ w["key"] @ c.T / math.sqrt(DIM)).softmax(-1)
    close(pooler(states, mask)[0], (h + weights @ c @ w["value"].T @ w["output"].T).mean(0), 1e-4)


# --- LAMA and token weights --------------------------------------------------------------------


def lama(H, k, P, Q):
    """The formula as a line of its own, with the weights."""
    c = (H * k[..., None]).sum(1) / k.sum(1, keepdim=True)
    al = normalize(torch.tanh((c @ P)[:, None] * (H @ Q)), dim=-1, eps=1e-12)
    w = torch.softmax(al.masked_fill(k[..., None] == 0, -torch.inf), 1)
    return torch.einsum("btm,btd->bmd", w, H).flatten(1), w


def test_low_rank_attention_equals_its_formula():
    pooler, (states, mask) = small("low_rank_attention"), batch([5, 3])
    assert pooler.out_dim == 3 * DIM
    expected, weights = lama(states, mask.float(), pooler.context, pooler.item)
    close(pooler(states, mask), expected)
    close(pooler.weights(states, Tokens(mask)), weights)


def test_weights_of_low_rank_attention_sum_to_one_within_a_factor_of_e_squared():
    pooler, (states, mask) = small("low_rank_attention"), batch([9, 9, 9])
    weights = pooler.weights(10 * states, Tokens(mask))
    close(weights.sum(1), torch.ones(3, 3))
    factor = (weights.amax(1) / weights.amin(1)).max()
    assert 1.5 < factor <= math.e**2 * (1 + 1e-5)


def test_low_rank_attention_of_one_token_is_that_token_for_every_head():
    states, mask = batch([1, 1], right=2)
    close(small("low_rank_attention")(states, mask), states[:, 0].repeat(1, 3))


def test_low_rank_attention_without_a_context_is_the_mean_for_every_head():
    pooler, (states, mask) = small("low_rank_attention"), batch([5, 3])
    with torch.no_grad():
        pooler.context.zero_()
    pooled = pooler(states, mask)
    close(pooled, POOLINGS["mean"](states, Tokens(mask)).repeat(1, 3))
    pooled.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in pooler.parameters())


@pytest.mark.parametrize("items", [None, 5])
def test_token_weights_begin_as_the_mean(items):
    pooler = small("token_weights", items, trained=False)
    states, mask = batch([5, 5] if items else [5, 3], right=0 if items else 2)
    close(pooler(states, mask), POOLINGS["mean"](states, Tokens(mask)), 1e-6)


def test_token_weights_by_hand():
    pooler, (states, mask) = small("token_weights"), batch([5, 3])
    weights = (states[1, :3] @ pooler.score).exp()
    close(pooler(states, mask)[1], (weights[:, None] * states[1, :3]).sum(0) / weights.sum())


# --- how large they are ------------------------------------------------------------------------


def of_block(d, heads, dim_head, ffn):
    """Four projections, three layer norms, and the two biased layers of a GEGLU."""
    hidden = ffn * d
    return 4 * d * heads * dim_head + 6 * d + (d + 1) * 2 * hidden + (hidden + 1) * d


def on_meta(name, dim, items=None, **options):
    with torch.device("meta"):
        return parameters(build(name, dim, items, **options))


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    tang = on_meta("cross_attention", 4096, 32, **PAPER_CODE)
    assert tang == of_block(4096, 32, 2048, 4) + (768 + 32) * 4096 == 1_278_406_656
    nv_embed = on_meta("latent_attention", 4096, **NV_EMBED)
    assert nv_embed == of_block(4096, 8, 4096, 4) + 512 * 4096 == 740_356_096


def test_the_published_rows_of_the_item_embedding_do_not_follow_the_layers():
    qwen2 = {"dim": 896, "items": 24}
    with torch.device("meta"):
        pooler = build("cross_attention", **qwen2, **PAPER_CODE)
    assert pooler.item_embedding.shape == (32, 896)
    assert pooler.block.attention.query.out_features == 65536
    assert build("cross_attention", 24, 5).item_embedding.shape == (5, 24)


@pytest.mark.parametrize("d", [64, 576])
def test_the_numbers_of_parameters_in_closed_form(d):
    block = of_block(d, 8, d // 8, 1)
    expected = {
        "cross_attention": block + 16 * d,
        "latent_attention": block + 512 * d,
        "self_attention": block,
        "low_rank_attention": 2 * d * 8,
        "token_weights": d,
    }
    assert {name: on_meta(name, d) for name in POOLERS} == expected
    with_layers = {name: count + 30 * d for name, count in expected.items()}
    assert {name: on_meta(name, d, 30) for name in POOLERS} == with_layers


def test_frozen_weights_are_not_counted():
    pooler = small("token_weights", items=3)
    pooler.item_embedding.requires_grad_(False)
    assert parameters(pooler) == DIM


@pytest.mark.parametrize("name", [*OF_ATTENTION, "low_rank_attention"])
@pytest.mark.parametrize(("dim", "budget", "items"), [(64, 60_000, None), (576, 10**6, 30)])
def test_options_within_a_budget_use_it_up(name, dim, budget, items):
    options = within(name, dim, budget, items)
    count = on_meta(name, dim, items, **options)
    step = {"low_rank_attention": 2 * dim}.get(name, 8 * (7 * dim + 2))
    assert budget - step < count <= budget
    if name in OF_ATTENTION:
        assert round(options["ffn"] * dim) == 8 * options["dim_head"]


def test_fixed_options_stay_within_a_budget():
    options = within("latent_attention", 64, 30_000, latents=7, heads=4, ffn=1)
    assert {**options, "dim_head": None} == {"latents": 7, "heads": 4, "ffn": 1, "dim_head": None}
    assert on_meta("latent_attention", 64, **options) <= 30_000
    fixed = {"dim_head": 8, "ffn": 1, "latents": 7}
    assert within("cross_attention", 64, 10**9, **fixed) == fixed
    assert within("token_weights", 64, 10**9) == {}


def test_a_budget_too_small_names_the_smallest():
    with pytest.raises(ValueError, match=r"smallest token_weights at dim 64 .* has 64 parameters"):
        within("token_weights", 64, 63)
    with pytest.raises(ValueError, match=r"the budget is 1000; raise it, or fix a smaller option"):
        within("latent_attention", 64, 1000)
