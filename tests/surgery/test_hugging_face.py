"""Growth of networks of Hugging Face's transformers, saved and loaded again; they are in the optional extra `zoo`."""

import subprocess
import sys

import pytest
import torch
from networks import relative_change, rng

from neuronsplit.data.download import import_torchvision_datasets
from neuronsplit.surgery.split_neuron import split_neuron, widen

import_torchvision_datasets()  # transformers imports torchvision
transformers = pytest.importorskip("transformers", exc_type=ImportError)
transformers.logging.set_verbosity_error()

SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 39}  # fmt: skip
BLOCKS = [f"model.layers.{n}" for n in range(2)]
FAMILIES = {  # model, configuration, and the widths of each kind of growth
    "Llama": ("LlamaForCausalLM", "LlamaConfig", SMALL),
    "tied Llama": ("LlamaForCausalLM", "LlamaConfig", SMALL | {"tie_word_embeddings": True}),
    "Qwen3": ("Qwen3ForCausalLM", "Qwen3Config", SMALL | {"head_dim": 4}),
    "GPT-2": ("GPT2LMHeadModel", "GPT2Config",
              {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "bos_token_id": 1,
               "eos_token_id": 39}),
}  # fmt: skip
GPT2_WIDTHS = {
    "mlp": {f"transformer.h.{n}.mlp.c_fc": 128 for n in range(2)},
    "heads": {f"transformer.h.{n}.attn.c_attn": 96 for n in range(2)},
    "width": {"transformer.wte": 32},
}
WIDTHS = {
    "mlp": {f"{block}.mlp.up_proj": 48 for block in BLOCKS},
    "heads": {f"{block}.self_attn.q_proj": 32 for block in BLOCKS},
    "width": {"model.embed_tokens": 32},
}
GROWTHS = [["mlp"], ["heads"], ["width"], ["mlp", "heads", "width"]]
CANNOT_BE_SAVED = [("GPT-2", ["heads"]), ("GPT-2", ["width"])]  # the size of a head is width ÷ heads
LOAD = """
import sys, torch, transformers
net = getattr(transformers, sys.argv[2]).from_pretrained(sys.argv[1]).double().eval()
ids = torch.load(sys.argv[1] + "/ids.pt")
with torch.no_grad():
    logits = net(input_ids=ids).logits
    texts = [net.generate(ids, max_new_tokens=5, do_sample=False, use_cache=cache) for cache in (True, False)]
torch.save((logits, texts), sys.argv[1] + "/out.pt")
"""


def language_model(family):
    torch.manual_seed(0)
    model, config, options = FAMILIES[family]
    net = getattr(transformers, model)(getattr(transformers, config)(**options)).double().eval()
    return net, torch.randint(2, 38, (2, 6))


def logits_of(net, ids):
    with torch.no_grad():
        return net(input_ids=ids).logits


def grown(net, family, growth, ids):
    widths = GPT2_WIDTHS if family == "GPT-2" else WIDTHS
    return [widen(net, widths[kind], example_inputs={"input_ids": ids}) for kind in growth]


@pytest.mark.parametrize("growth", GROWTHS, ids="+".join)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_language_model_grows_exactly_and_is_loaded_again(family, growth, tmp_path):
    net, ids = language_model(family)
    before = logits_of(net, ids)
    text = net.generate(ids, max_new_tokens=5, do_sample=False)
    records = grown(net, family, growth, ids)
    # RMSNorm of Llama and Qwen3 computes in float32 whatever the network does.
    assert relative_change(before, logits_of(net, ids)) <= (1e-12 if family == "GPT-2" else 1e-6)
    if (family, growth) in CANNOT_BE_SAVED:
        assert "attn.c_attn.weight" in records[-1].unsaved
        return
    assert records[-1].unsaved == ""
    net.save_pretrained(tmp_path)
    torch.save(ids, tmp_path / "ids.pt")
    code = f"from neuronsplit.data.download import import_torchvision_datasets as ready; ready()\n{LOAD}"
    subprocess.run([sys.executable, "-c", code, tmp_path, FAMILIES[family][0]], check=True, capture_output=True)
    logits, texts = torch.load(tmp_path / "out.pt")
    assert relative_change(before, logits) <= 1e-5  # a file may hold float32
    assert all(torch.equal(text, one) for one in texts)


def test_an_embedding_tied_to_the_head_with_one_wrong_share_is_not_exact():
    net, ids = language_model("tied Llama")
    before = logits_of(net, ids)
    (record,) = grown(net, "tied Llama", ["width"], ids)
    assert record.coefficients[0] == pytest.approx([0.5**0.5] * 4)
    with torch.no_grad():
        net.model.embed_tokens.weight[:, 3] *= 1.01
    assert relative_change(before, logits_of(net, ids)) > 1e-4


def test_a_rank_of_an_adapter_grows_in_training_and_learns():
    peft = pytest.importorskip("peft", exc_type=ImportError)
    base, ids = language_model("Llama")
    net = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])).double()
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)

    def steps(n):
        for _ in range(n):
            optimizer.zero_grad()
            net(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()

    steps(3)
    adapter = net.base_model.model.model.layers[0].self_attn.q_proj
    layer, before = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default", logits_of(net, ids)
    split_neuron(net, layer, 1, example_inputs={"input_ids": ids}, optimizer=optimizer, rule="antisymmetric", rng=rng())
    assert relative_change(before, logits_of(net, ids)) <= 1e-6
    assert adapter.scaling == {"default": 2.0}  # as with a rank of 4
    rank = [adapter.lora_A["default"].weight[4].clone(), adapter.lora_B["default"].weight[:, 4].clone()]
    assert adapter.lora_A["default"].weight.shape[0] == 5 and all(part.norm() > 0 for part in rank)
    steps(3)
    moved = [adapter.lora_A["default"].weight[4] - rank[0], adapter.lora_B["default"].weight[:, 4] - rank[1]]
    assert all(part.norm() > 1e-3 for part in moved)
