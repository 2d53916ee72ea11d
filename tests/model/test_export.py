"""Out to a Hugging Face folder and in from one: the same logits, the same tokens, mismatches refused."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from skippipe.__main__ import main
from skippipe.config import DataConfig, ModelConfig, RunConfig
from skippipe.data.batches import prepare
from skippipe.data.tokenizer import load_tokenizer
from skippipe.errors import UserError
from skippipe.model.checkpoint import find_latest
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.export import export_folder
from skippipe.model.inference import all_stages, forward
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Plan
from tests.data.conftest import write_pretrained

PLAN = Plan(((0,), (1,), (2,)), ((0, 1, 2), (0, 2, 1)), {}, (0.0,) * 3, 0.0, 0.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    lines = "".join(f"def line{i}(x):\n    return x * {i * i % 97}  # caf\u00e9\n\n" for i in range(1500))
    (folder / "text.txt").write_text(lines)
    return prepare(DataConfig(source="files", paths=(str(folder / "text.txt"),), vocabulary=400, cache=str(folder)))


@pytest.fixture(scope="module", params=["transformers", "simplellm"])
def trained(request, prepared, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    model = ModelConfig(blocks=request.param, d_model=16, heads=2, context=24, feed_forward=40, layers_per_stage=2)
    data = DataConfig(cache=str(prepared.tokens.parent), source="files", paths=(f"{prepared.tokens.parent}/text.txt",))
    config = RunConfig(model=model, data=data)
    trainer = ReferenceTrainer(config, PLAN, 2, prepared)
    for iteration in range(2):
        trainer.train_iteration(iteration)
    trainer.save(run, Meta(2, 3, prepared.vocabulary, "baseline", "", "", config))
    return run, trainer


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "llama"
    assert export_folder(find_latest(trained[0]), folder)
    return folder


def test_logits_of_the_exported_model_are_ours(trained, exported, prepared):
    _, trainer = trained
    tokens = torch.from_numpy(prepared.map_tokens()[:48].astype("int64")).view(2, 24)
    llama = AutoModelForCausalLM.from_pretrained(exported)
    with torch.no_grad():
        ours = trainer.stages[0].logits(forward(trainer.stages, all_stages(3), tokens))
        assert torch.allclose(llama(tokens).logits, ours, rtol=0, atol=1e-5)


def test_the_exported_tokenizer_encodes_and_decodes_as_ours(exported, prepared):
    theirs, ours = AutoTokenizer.from_pretrained(exported), load_tokenizer(prepared.tokenizer)
    for text in ("def line7(x):\n    return x\n", "\n\n  caf\u00e9 \u4e2d\t\U0001f600   end ", " </s> ", "x"):
        encoded = theirs(text, add_special_tokens=False)["input_ids"]
        if "</s>" not in text:
            assert encoded == ours.encode(text)
        assert theirs.decode(encoded) == text


def test_a_run_that_starts_from_the_exported_folder_starts_from_the_trained_model(trained, exported, prepared):
    _, trainer = trained
    for layers_per_stage, stages in ((2, 3), (3, 2)):
        shape = {"d_model": 16, "heads": 2, "context": 24, "feed_forward": 40, "layers_per_stage": layers_per_stage}
        model = ModelConfig(**shape, init_from=str(exported))
        plan = Plan(tuple((stage,) for stage in range(stages)), (tuple(range(stages)),), {}, (0.0,) * stages, 0.0, 0.0)
        started = ReferenceTrainer(RunConfig(model=model), plan, 2, prepared)
        tokens = torch.arange(24)[None]
        with torch.no_grad():
            expected = forward(trainer.stages, all_stages(3), tokens)
            found = forward(started.stages, all_stages(stages), tokens)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"d_model": 32}, "hidden_size is 16, this run has 32"),
        ({"layers_per_stage": 1}, "num_hidden_layers is 6, this run has 3"),
        ({"heads": 4}, "num_attention_heads is 2, this run has 4"),
    ],
)
def test_a_folder_of_another_model_is_refused(exported, prepared, change, named):
    fields = {"d_model": 16, "heads": 2, "context": 24, "feed_forward": 40, "layers_per_stage": 2, **change}
    model = ModelConfig(**fields, init_from=str(exported))
    with pytest.raises(UserError, match=named):
        ReferenceTrainer(RunConfig(model=model), PLAN, 2, prepared)


def test_a_folder_that_is_none_is_refused(prepared, tmp_path):
    model = ModelConfig(d_model=16, heads=2, context=24, init_from=str(tmp_path))
    nobodys = replace(model, init_from="~nobody-by-this-name/hf")
    with pytest.raises(UserError, match=r"^model\.init_from: '~nobody-by-this-name/hf': there is no such home"):
        ReferenceTrainer(RunConfig(model=nobodys), PLAN, 2, prepared)
    with pytest.raises(UserError, match=r"model\.init_from: .*config\.json: can't be read"):
        ReferenceTrainer(RunConfig(model=model), PLAN, 2, prepared)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        ReferenceTrainer(RunConfig(model=model), PLAN, 2, prepared)


def test_a_folder_in_use_is_not_written_over(trained, exported):
    with pytest.raises(UserError, match="not empty"):
        export_folder(find_latest(trained[0]), exported)


def test_the_commands_take_a_runs_folder(trained, tmp_path, capsys):
    run = str(trained[0])
    assert main(["evaluate", run, "--its-paths", "--omit-ratio", "0.5", "--draws", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["visited"]) == 3
    assert main(["generate", run, "--prompt", "def ", "--tokens", "5", "--exit-after", "1"]) == 0
    assert capsys.readouterr().out.startswith("def ")
    assert main(["export", run, "--out", str(tmp_path / "hf")]) == 0
    assert (tmp_path / "hf" / "model.safetensors").exists()
    assert main(["evaluate", run, "--omit", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: stage 0 can't be left out")


def test_paths_that_a_checkpoint_names_are_used_only_if_asked(trained, tmp_path, capsys):
    run, (source, *_) = str(trained[0]), find_latest(trained[0]).meta.config.data.paths
    assert main(["evaluate", run]) == 2
    assert "add --its-paths" in capsys.readouterr().err
    text = ["data.source=files", f"data.paths=[{source}]", f"data.cache={tmp_path}"]
    assert main(["evaluate", run, *text, "--json"]) == 0
    assert list(tmp_path.glob("tokens-*.bin"))


def test_a_tokenizer_of_transformers_goes_with_checkpoints_and_folders(prepared, tmp_path, capsys):
    text = prepared.tokens.parent / "text.txt"
    write_pretrained(tmp_path / "theirs", [text.read_text()])
    data = DataConfig(
        source="files", paths=(str(text),), tokenizer=str(tmp_path / "theirs"), cache=str(tmp_path / "cache")
    )
    config = RunConfig(model=ModelConfig(d_model=16, heads=2, context=24, feed_forward=40), data=data)
    trainer = ReferenceTrainer(config, PLAN, 2, prepare(data))
    run = tmp_path / "run"
    for done in range(1, 5):
        trainer.train_iteration(done - 1)
        trainer.save(run, Meta(done, 3, trainer.prepared.vocabulary, "baseline", "", "", config))
    # What is too old is gone, tokenizers included.
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [f"iteration-00000{n}" for n in (2, 3, 4)]
    checkpoint, ours = find_latest(run), load_tokenizer(trainer.prepared.tokenizer)
    assert export_folder(checkpoint, tmp_path / "hf")
    sentence = "def line7(x):\n    return <|end|>x\n"
    for folder in (checkpoint.folder, tmp_path / "hf"):
        theirs = AutoTokenizer.from_pretrained(folder)
        assert theirs("line7(x)")["input_ids"] == ours.encode("line7(x)")
        assert theirs.eos_token_id == ours.eos_id
        reopened = prepare(replace(data, tokenizer=str(folder)))
        assert load_tokenizer(reopened.tokenizer).encode(sentence) == ours.encode(sentence)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "hf").config.eos_token_id == ours.eos_id
    assert main(["generate", str(run), "--prompt", "def ", "--tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("def ")
    assert main(["evaluate", str(run), "--its-paths"]) == 0
