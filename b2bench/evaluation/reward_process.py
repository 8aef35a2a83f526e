"""A reward in a process of its own, so that a captioner of 14 GB shares no memory with training.

Requests and answers are lines of JSON, followed by the tensors' bytes; nothing is pickled. The process ends with the
one that started it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from b2bench.environment import python
from b2bench.errors import RunFailed, UserError

ENDING = 10.0
"""Seconds that the process has to end in when it is told to"""


class RewardProcess:
    """A reward, by its name and hyperparameters, that runs elsewhere and is called as if it ran here.

    ``plugins`` are the files in which it may be defined. The process is started by :meth:`prepare`.
    """

    def __init__(self, name: str, values: Mapping[str, Any], plugins: Sequence[str] = ()) -> None:
        self.name, self.values, self.plugins = name, dict(values), list(plugins)
        self.clip = ""
        """The CLIP checkpoint that it holds, if it does."""
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, device: torch.device) -> None:
        """Start the process and let the reward load there.

        Raises:
            UserError: as the reward's own ``prepare`` does.
            RunFailed: the process ended.
        """
        self._process = subprocess.Popen(
            python("b2bench.evaluation.reward_process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the run, whose end it sees
        )
        from huggingface_hub import constants

        request = {"name": self.name, "values": self.values, "plugins": self.plugins}
        # offline: the hub is out of reach, as a run has found out, or as the user's environment says
        here = {"device": str(device), "threads": torch.get_num_threads(), "offline": constants.HF_HUB_OFFLINE}
        answer = self._ask(request | here)
        self.clip = str(answer["clip"])

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> scores [N].

        Raises:
            RunFailed: the reward raised something, or its process ended.
        """
        return self._answered({"prompts": list(prompts)}, images)

    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax over the raw image embedding [N, E] of the reward's CLIP model; see ``inception.py``."""
        return self._answered({"probabilities": True}, images)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            try:
                self._process.wait(timeout=ENDING)
            except subprocess.TimeoutExpired:  # it is at work on images that nobody waits for
                self._process.kill()
                self._process.wait()
            self._process = None

    def _answered(self, request: dict[str, Any], images: Tensor) -> Tensor:
        answer = self._ask(request | {"shape": list(images.shape)}, images)
        assert self._process is not None
        assert self._process.stdout is not None
        return _read_tensor(self._process.stdout, answer["shape"])

    def _ask(self, request: dict[str, Any], images: Tensor | None = None) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RunFailed(f"the process of reward {self.name} is not running")
        try:
            _write(process.stdin, request, images)
            line = process.stdout.readline()
        except OSError:  # it is gone
            line = b""
        if not line:
            code = process.wait()
            why = f"signal {-code}; 9 is what a machine without memory sends" if code < 0 else f"exit code {code}"
            raise RunFailed(f"the process of reward {self.name} ended ({why})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise (UserError if answer["user"] else RunFailed)(answer["error"])
        return answer


def _write(stream: IO[bytes], header: Mapping[str, Any], tensor: Tensor | None = None) -> None:
    stream.write(json.dumps(header).encode() + b"\n")
    if tensor is not None:
        stream.write(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    stream.flush()


def _read_tensor(stream: IO[bytes], shape: Sequence[int]) -> Tensor:
    size = 4 * math.prod(shape)
    data = stream.read(size)
    if len(data) != size:
        raise RunFailed("the process of the reward ended in the middle of an answer")
    return torch.from_numpy(np.frombuffer(data, np.float32).copy().reshape(shape))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until ``requests`` ends: first the reward to load, then images with their prompts."""
    from huggingface_hub import constants

    from b2bench.evaluation.scorers import ClipScorer, clip_probabilities
    from b2bench.guard import guarded
    from b2bench.hyperparameters import assemble, build
    from b2bench.registry import load_registries
    from b2bench.text import described

    reward: Any = None
    while line := requests.readline():
        request = json.loads(line)
        found = torch.empty(0)
        try:
            if reward is None:
                torch.set_num_threads(request["threads"])
                registry = load_registries([Path(path) for path in request["plugins"]])["reward"]
                constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE or request["offline"]
                with guarded():  # a plugin here is kept as far from the process as one in the run's own
                    reward = build(registry.get(request["name"]), request["values"])
                    assemble(reward, registry, None)
                    if hasattr(reward, "prepare"):
                        reward.prepare(torch.device(request["device"]))
                scorer = getattr(reward, "scorer", None)
                _write(answers, {"clip": scorer.name if isinstance(scorer, ClipScorer) else ""})
                continue
            images = _read_tensor(requests, request["shape"])
            if "prompts" in request:
                with guarded():
                    found = torch.as_tensor(reward(images, request["prompts"])).detach().float().cpu()
            else:
                found = clip_probabilities(reward.scorer)(images)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a plugin raises belongs to whoever asked
            user = isinstance(error, UserError)
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{described(error)} ({where.filename}, line {where.lineno})"
            _write(answers, {"error": str(error) if isinstance(error, UserError | RunFailed) else text, "user": user})
            continue
        _write(answers, {"shape": list(found.shape)}, found)


def main() -> None:
    # What libraries and plugins print goes to stderr: stdout carries the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers)
    except (BrokenPipeError, KeyboardInterrupt):  # whoever asked is gone, or was interrupted and says so
        os._exit(1)


if __name__ == "__main__":
    main()
