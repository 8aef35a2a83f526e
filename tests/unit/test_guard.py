"""What plugins change of the process is put back."""

import io
import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch

from b2bench.guard import guarded


def test_everything_is_put_back_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd())  # back at the end, whatever happens
    folder, threads = os.getcwd(), torch.get_num_threads()
    seeds = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    def rude() -> None:
        os.chdir(tmp_path)
        tmp_path.rmdir()
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(threads + 1)
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        raise KeyError("x")

    with pytest.raises(KeyError), guarded() as changed:
        rude()
    assert len(changed) == 9
    assert os.getcwd() == folder
    assert torch.is_grad_enabled()
    assert not torch.backends.cudnn.benchmark
    assert torch.zeros(1).dtype == torch.float32
    assert torch.zeros(1).device.type == "cpu"
    assert torch.get_num_threads() == threads
    assert (random.getstate(), np.random.get_state()[1].tolist()) == seeds[:2]
    assert torch.equal(torch.get_rng_state(), seeds[2])


def test_what_changes_nothing_is_left_alone() -> None:
    with guarded() as changed:
        torch.zeros(3).sum()
    assert changed == []


def test_what_is_printed_goes_to_stderr() -> None:
    code = (
        "import os, sys\nfrom b2bench.guard import guarded\nprint('before')\n"
        "with guarded():\n    print('text'); os.system('echo child'); os.write(1, b'bytes\\n')\n"
        "    sys.stdout.close()\nprint('end', file=sys.stderr)\n"
        "print('after'); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "before\nafter\n")
    assert sorted(done.stderr.split()) == ["bytes", "child", "end", "text"]


@pytest.mark.slow
def test_a_plugin_that_is_the_first_to_import_torch_leaves_it_as_it_comes() -> None:
    code = (
        "import sys\nfrom b2bench.guard import guarded\n"
        "with guarded():\n    import torch; torch.set_grad_enabled(False); torch.set_default_dtype(torch.float64)\n"
        "sys.exit(not torch.is_grad_enabled() or torch.get_default_dtype() != torch.float32)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_would_cost_a_run_its_numbers_its_words_or_its_interrupts_is_put_back() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore it
    handler, stderr = signal.getsignal(signal.SIGINT), sys.stderr
    filters, disabled = list(warnings.filters), logging.root.manager.disable
    with guarded() as changed:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr = io.StringIO()
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "a library's own")  # its own business, and needed at the next call
        logging.disable(logging.CRITICAL)
        np.seterr(all="raise")
        torch.autocast("cpu", torch.bfloat16).__enter__()
        torch.backends.mkldnn.set_flags(False)
    assert len(changed) == 7
    assert signal.getsignal(signal.SIGINT) is handler
    assert sys.stderr is stderr
    assert [each for each in warnings.filters if each[1] is None or "a library" not in each[1].pattern] == filters
    assert logging.root.manager.disable == disabled
    assert np.geterr()["divide"] == "warn"
    assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
    assert torch.backends.mkldnn.enabled
    warnings.filters[:] = filters


@pytest.mark.parametrize("place", ["backends", "backends.cuda.matmul", "backends.cudnn.conv", "backends.mkldnn.matmul"])
def test_either_name_of_a_precision_is_put_back(place: str) -> None:
    """torch raises if it is asked by the old name after it was told by the new one (pytorch#179445)."""
    part = attrgetter(place)(torch)
    before = part.fp32_precision
    with guarded() as changed:
        part.fp32_precision = "ieee" if before == "tf32" else "tf32"
    assert changed == [f"torch.{place}.fp32_precision"]
    assert part.fp32_precision == before
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32
    with guarded() as changed:
        torch.set_float32_matmul_precision("high")
    assert changed
    assert torch.get_float32_matmul_precision() == "highest"
