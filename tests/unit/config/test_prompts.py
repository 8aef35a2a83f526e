import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from b2bench.backbones.specs import backbones
from b2bench.config import prompt_sets as prompts
from b2bench.config.prompt_sets import MAX_LENGTH, PromptSet, load_prompts, prompt_set_names
from b2bench.errors import UserError
from b2bench.pocket.world import OBJECTS, PAIRS, RELATIONS, Facts, caption, in_order, known_sayings, parse_caption

# Counts, first, last and one middle line of the paper's lists, and the hash of both splits in order.
PAPER = {
    "template1": (
        (45, "a cat washing dishes", "a ant riding a bike", "a kangaroo playing chess"),
        (90, "a cat riding a bike", "a ant playing chess", "a kangaroo riding a bike"),
        "7ae4e9a405b70d7e06d1c661bfba7be0c4708826d44d0d77daf576b23195e897",
    ),
    "template2": (
        (40, "red apple", "blue blueberry", "red grapefruit"),
        (40, "yellow apple", "white sweet potato", "white brussels sprouts"),
        "a5846e6ca2f8135e1d2f9a11785860067d759a6888662f4bf7bceb80ca47bd85",
    ),
    "template3": (
        (40, "chair under umbrella", "kite on the right of kite", "person on the left of person"),
        (30, "vase on table", "wheel in the front of wheel", "road on the left of tree"),
        "76e6b3ad81b63ebf78841f6bd1bef769ec2ed5d5d288b084d2e4b0e503b9acb8",
    ),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_lists_are_word_for_word(name):
    train, test, content_hash = PAPER[name]
    loaded = load_prompts(name)
    for split, (count, first, middle, last) in ((loaded.train, train), (loaded.test, test)):
        assert (len(split), split[0], split[-1]) == (count, first, last)
        assert middle in split
    assert loaded.content_hash == content_hash


def test_template1_crosses_every_animal_with_every_activity():
    loaded = load_prompts("template1")
    activities = ("washing dishes", "riding a bike", "playing chess")
    animals = {prompt.removesuffix(activity) for prompt in loaded.train for activity in activities} - set(loaded.train)
    assert len(animals) == 45
    assert {*loaded.train, *loaded.test} == {animal + activity for animal in animals for activity in activities}


@pytest.mark.parametrize("name", prompt_set_names())
def test_every_registered_set_is_complete(name):
    loaded = load_prompts(name)
    assert loaded.name == name
    assert loaded.version
    assert loaded.source
    assert loaded.licence
    assert loaded.description
    assert loaded.depicted_by
    assert not set(loaded.train) & set(loaded.test)


@pytest.mark.parametrize("name", prompt_set_names())
def test_a_set_is_depicted_by_the_backbones_that_it_names(name):
    loaded = load_prompts(name)
    known = backbones()
    assert set(loaded.depicted_by) <= set(known)
    for backbone in known.values():
        if backbone.name in loaded.depicted_by:
            backbone.drawing([*loaded.train, *loaded.test])
    pocket = known["pocket"]
    if "pocket" not in loaded.depicted_by:
        with pytest.raises(UserError, match=r"cannot depict|never read"):
            pocket.drawing([*loaded.train, *loaded.test])


def test_pocket_draws_a_pair_of_objects_as_its_network_knows_it():
    """The order and the side of a pair that it has never read are refused, with those that it knows."""
    pocket = backbones()["pocket"]
    for first, second in PAIRS:
        known = known_sayings(first, second)
        assert set(known) == set(known_sayings(second, first))
        pocket.drawing([caption(facts) for facts in known])
        for facts in known:
            turned = Facts(3, facts.subject, RELATIONS[facts.detail or ""], facts.second)
            for other in (replace(facts, subject=facts.second or "", second=facts.subject), turned):
                with pytest.raises(UserError, match=f"never read {caption(other)!r}.*{caption(facts)}"):
                    pocket.drawing([caption(other)])
    # every object is named first, and each relation is said of as many pairs
    said = [facts for pair in PAIRS for facts in known_sayings(*pair)]
    assert Counter(facts.subject for facts in said) == dict.fromkeys(OBJECTS, 6)
    assert Counter(facts.detail for facts in said) == dict.fromkeys(RELATIONS, 12)


def test_the_default_prompts_of_a_backbone_are_ones_it_can_depict():
    for backbone in backbones().values():
        assert backbone.name in load_prompts(backbone.prompts).depicted_by


def test_pocket_sets_are_of_the_paper_sets_design():
    """Same sizes; in template 2 the paper's lines with some foods replaced."""
    for t in (2, 3):
        paper, ours = load_prompts(f"template{t}"), load_prompts(f"pocket-template{t}")
        assert (len(ours.train), len(ours.test)) == (len(paper.train), len(paper.test))
    paper, ours = load_prompts("template2"), load_prompts("pocket-template2")
    replaced = [
        (old, new)
        for split in ("train", "test")
        for old, new in zip(getattr(paper, split), getattr(ours, split), strict=True)
        if old != new
    ]
    assert len(replaced) == 8 + 4 + 8
    for prompts_ in (ours.train, ours.test):
        assert all(parse_caption(prompt).detail for prompt in prompts_)
    trained, tested = ({parse_caption(p).subject for p in split} for split in (ours.train, ours.test))
    assert len(trained) == 20
    assert len(tested - trained) == 20


def test_relations_of_pocket_template3():
    """Four relations in training and two more in the test, and no test picture is a training picture in other words."""
    ours = load_prompts("pocket-template3")
    train, test = ([parse_caption(prompt) for prompt in split] for split in (ours.train, ours.test))
    seen, new = list(RELATIONS)[:4], list(RELATIONS)[4:]
    assert Counter(facts.detail for facts in train) == dict.fromkeys(seen, 10)
    assert Counter(facts.detail for facts in test) == {**dict.fromkeys(seen, 2), **dict.fromkeys(new, 11)}
    pictures = [facts.labels for facts in (*train, *test)]
    assert len(set(pictures)) == 70
    assert all(in_order(facts) for facts in (*train, *test))
    for split in (train, test):
        assert {name for facts in split for name in (facts.subject, facts.second)} == set(OBJECTS)


def test_names_are_listed_without_torch():
    use = "import sys, b2bench.prompts as p; p.prompt_set_names(); p.load_prompts('template1')"
    code = f"{use}; print('torch' in sys.modules)"
    root = Path(prompts.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"


def test_hash_depends_on_prompts_and_order_only():
    first = PromptSet("a", "1", ("x", "y"), ("z",))
    assert first.content_hash == replace(first, name="b", version="2", source="s").content_hash
    assert first.content_hash != replace(first, train=("y", "x")).content_hash
    assert first.content_hash != replace(first, train=("x",), test=("y", "z")).content_hash


@pytest.mark.parametrize(("train", "message"), [((), "holds no prompt"), (("x", "x"), "repeats a prompt")])
def test_a_prompt_set_refuses_what_is_no_set(train, message):
    with pytest.raises(ValueError, match=message):
        PromptSet("a", "1", train, ("y",))


# A text file of one's own


def test_a_text_file_is_train_and_test(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbf# animals\r\n\r\n  a caf\xc3\xa9 cat \r\n# more\na dog # not a comment")
    loaded = load_prompts(path)
    assert loaded.train == loaded.test == ("a café cat", "a dog # not a comment")
    assert (loaded.name, loaded.source) == ("mine.txt", str(path))
    assert loaded.version == loaded.content_hash[:12]
    assert load_prompts(str(path)) == loaded


def test_a_folder_keeps_train_and_test_apart(tmp_path):
    (tmp_path / "train.txt").write_text("a cat\n")
    (tmp_path / "test.txt").write_text("a dog\n")
    loaded = load_prompts(tmp_path)
    assert (loaded.name, loaded.train, loaded.test) == (tmp_path.name, ("a cat",), ("a dog",))
    (tmp_path / "card.toml").write_text('name = "pets"\nversion = "3"\ndepicted_by = ["sd14"]\n')
    loaded = load_prompts(tmp_path)
    assert (loaded.name, loaded.version, loaded.depicted_by) == ("pets", "3", ("sd14",))


def test_a_name_goes_before_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("template1").write_text("a cat\n")
    assert len(load_prompts("template1").train) == 45
    assert load_prompts("./template1").train == ("a cat",)


def test_unicode_that_is_no_control_character_is_allowed(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("👩\u200d🚀 on the\xa0moon\nعنکبوت\u200cها\nline\u2028separator", encoding="utf-8")
    assert len(load_prompts(path).train) == 3


def refuse(name_or_path, *parts):
    with pytest.raises(UserError) as caught:
        load_prompts(name_or_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_unknown_name():
    refuse(
        "templat1",
        "unknown prompts 'templat1'",
        "Did you mean 'template1'?",
        "template2",
        "path of a text file",
    )
    refuse("animals/of/mine.txt", "it is not a file")


@pytest.mark.parametrize("name", ["", "x" * 5000, "~nobody-of-this-name/a.txt", "a\0b"])
def test_what_can_be_neither_name_nor_path(name):
    refuse(name, "unknown prompts", "Registered: pocket-template2, pocket-template3, template1")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["holds no prompt", "one prompt a line"]),
        (b"\n  \n# only a comment\n", ["holds no prompt"]),
        (b"a cat\na caf\xe9\n", ["not UTF-8", "byte 11 (line 2)", "0xe9", "encoding UTF-8"]),
        ("a cat\n".encode("utf-16"), ["not UTF-8", "byte 0 (line 1)"]),
        (b"a cat\n A\xc2\xa0Cat\n", ["line 2", "is on line 1 already (case and spaces aside"]),
        (b"a cat\n\na dog\n a cat\n", ["line 4", "'a cat' is on line 1 already", "removing one"]),
        (b"a cat\n" + b"x" * (MAX_LENGTH + 1), ["line 2", str(MAX_LENGTH + 1), f"at most {MAX_LENGTH}"]),
        (b"a\0cat\n", ["line 1", "control character '\\x00'"]),
        (b"a cat\ra dog\n", ["control character '\\r'"]),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, content, parts):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    refuse(path, str(path), *parts)


def test_a_prompt_of_the_greatest_length_is_allowed(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("x" * MAX_LENGTH)
    assert load_prompts(path).train == ("x" * MAX_LENGTH,)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "mine.txt"
    path.write_text("a cat\n")

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    refuse(path, str(path), "cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("test", "card", "parts"),
    [
        (None, "", ["has no test.txt", "train.txt and test.txt"]),
        ("a dog\na cat\n", "", ["'a cat' is in train.txt and in test.txt", "unseen"]),
        ("a dog\nA  CAT\n", "", ["'A  CAT' is in train.txt and in test.txt", "unseen"]),
        ("a dog\n", "name = pets", ["card.toml is not TOML"]),
        ("a dog\n", 'nmae = "pets"', ["unknown key 'nmae'", "known: depicted_by, description"]),
        ("a dog\n", "version = 1", ["'version' must be a text in quotes"]),
        ("a dog\n", 'depicted_by = "sd14"', ["'depicted_by' must be a list of texts"]),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path, test, card, parts):
    (tmp_path / "train.txt").write_text("a cat\n")
    (tmp_path / "card.toml").write_text(card)
    if test is not None:
        (tmp_path / "test.txt").write_text(test)
    refuse(tmp_path, str(tmp_path), *parts)


# Plugins


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Register entry points that look into a module ``plugin_of_prompts``, which is written here."""
    folder = tmp_path / "plugin_of_prompts"
    folder.mkdir()
    (folder / "train.txt").write_text("a cat\n")
    (folder / "test.txt").write_text("a dog\n")
    (folder / "__init__.py").write_text(
        "from b2bench.prompts import PromptSet\n"
        "folder = __path__[0]\n"
        "number = 7\n"
        "def made(): return PromptSet('other', '2', ('a cat',), ('a dog',))\n"
        "def broken(): raise RuntimeError('no such planet')\n"
        "def seen(): return PromptSet('other', '2', ('a cat', 'a dog'), ('A  Dog ',))\n"
        "def double(): return PromptSet('other', '2', ('a cat', 'A cat'), ('a dog',))\n"
        "def empty(): return PromptSet('other', '2', ('a cat', ' '), ('a dog',))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plugin_of_prompts", raising=False)

    def add(**values):
        entries = [EntryPoint(name, value, prompts.GROUP) for name, value in values.items()]
        monkeypatch.setattr(prompts, "entry_points", lambda group: entries if group == prompts.GROUP else [])

    return add


@pytest.mark.parametrize("value", ["plugin_of_prompts", "plugin_of_prompts:folder", "plugin_of_prompts:made"])
def test_a_plugin_names_a_folder_or_a_callable(register, value):
    register(pets=value)
    assert prompt_set_names() == ["pocket-template2", "pocket-template3", *PAPER, "pets"]
    loaded = load_prompts("pets")
    assert (loaded.name, loaded.train, loaded.test) == ("pets", ("a cat",), ("a dog",))


def test_names_are_listed_without_importing_a_plugin(register):
    register(pets="a_module_that_is_not_there")
    assert "pets" in prompt_set_names()
    refuse("pets", "prompts 'pets'", "a_module_that_is_not_there", "ModuleNotFoundError")


def test_a_plugin_that_cannot_be_used(register):
    register(pets="plugin_of_prompts:broken", seven="plugin_of_prompts:number")
    refuse("pets", "'plugin_of_prompts:broken'", "RuntimeError: no such planet")
    refuse("seven", "gives a int", "a callable that returns a PromptSet")


def test_a_set_that_code_makes_is_asked_what_a_file_is(register):
    register(seen="plugin_of_prompts:seen", double="plugin_of_prompts:double", empty="plugin_of_prompts:empty")
    refuse("seen", "'A  Dog ' is in train and in test, and a test prompt must be unseen")
    refuse("double", "'A cat' is in train twice")
    refuse("empty", "' ' in train is not a prompt")


def test_a_name_that_is_registered_twice_names_both_origins(register):
    register(template1="plugin_of_prompts:made")
    with pytest.raises(UserError, match=r"registered twice: by the built-in folder .*template1 and by entry point"):
        prompt_set_names()
