"""Storage precision of exported variables: rules that map patterns to precisions.

  float16                                        one precision for all
  dense*:cluster,bn*:float32,*:float16           the first pattern that matches a variable's path applies
  logits/*:cluster@512                           a codebook for every 512 outputs instead of one for the layer

Small variables, batch normalisation and biases stay float32 under every rule (`is_compressible`): together they are a
negligible share of a model, and rounding them would shift every score. So do the duals of kernel ridge regression, of
both signs, whose products nearly cancel: in float16 the real shards' ensemble loses 0.0009 GAP@20.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import yaml

from yt8m_tf.config import strict_yaml
from yt8m_tf.errors import InputError

if TYPE_CHECKING:
    import keras

Kind = Literal["float32", "float16", "cluster"]
KINDS: tuple[Kind, ...] = ("float32", "float16", "cluster")
ENTRIES = 256  # values of a codebook

# Smaller variables are not worth the rounding.
MIN_ELEMENTS = 1024

# Batch normalisation divides by statistics of any magnitude, a bias shifts every score of a class, and duals nearly
# cancel. All are stored in float32, whatever their size.
_KEPT_NAMES = ("gamma", "beta", "moving_mean", "moving_variance", "duals")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Variables whose path matches `pattern` (`*`, `?`, `[...]`; case matters) are stored as `kind`.

    Attributes:
      pattern: pattern of the whole path, such as "hidden1_dense/kernel"; `*` also matches slashes.
      kind: "float32", "float16", or "cluster": 256 values and an index of one byte for each weight.
      block: outputs (last axis) that share a codebook; None: all.
    """

    pattern: str
    kind: Kind
    block: int | None = None

    def __str__(self) -> str:
        return f"{self.pattern}:{self.kind}" + (f"@{self.block}" if self.block else "")


@dataclasses.dataclass(frozen=True)
class Precision:
    """Rules, the first of which that matches applies; variables without a matching rule stay float32."""

    rules: tuple[Rule, ...]

    def rule_of(self, variable: keras.Variable) -> Rule:
        """Returns the rule for a variable."""
        if is_compressible(variable):
            for rule in self.rules:
                if fnmatch.fnmatchcase(variable.path, rule.pattern):
                    return rule
        return Rule("*", "float32")

    @property
    def coarsest(self) -> Kind:
        """The least exact kind among the rules."""
        return max((rule.kind for rule in self.rules), key=KINDS.index, default="float32")

    def __str__(self) -> str:
        if len(self.rules) == 1 and self.rules[0].pattern == "*":
            return str(self.rules[0]).removeprefix("*:")
        return ",".join(map(str, self.rules))


FLOAT16 = Precision((Rule("*", "float16"),))
FLOAT32 = Precision((Rule("*", "float32"),))


def parse_precision(text: str) -> Precision:
    """Parses rules in the notation of the module's docstring, or reads them from a YAML list of `pattern:precision`.

    Raises:
      InputError: the file cannot be read, or a rule is invalid.
    """
    parts = map(str, _read_list(text)) if text.endswith((".yaml", ".yml")) else map(str.strip, text.split(","))
    rules = tuple(_rule(part, text) for part in parts)
    for rule, before in zip(rules[1:], rules, strict=False):
        if before.pattern == "*":
            raise InputError(
                f"--precision={text}: '{rule}' comes after '{before}', which matches everything, so it never applies;"
                " put it first"
            )
    return Precision(rules)


def is_compressible(variable: keras.Variable) -> bool:
    """Returns whether precision rules apply to a variable: float, at least 1,024 elements, no bias or BN parameter.

    Float64 variables are exempt, too: they are leaves of thousands of trees, whose rounding errors would add up.
    """
    if "float" not in variable.dtype or variable.dtype == "float64":
        return False
    if variable.name in _KEPT_NAMES or variable.name.endswith("bias"):
        return False
    return int(np.prod(variable.shape)) >= MIN_ELEMENTS


def growing_rules(precision: Precision, variables: Sequence[keras.Variable]) -> list[tuple[Rule, keras.Variable]]:
    """Returns the rules whose codebooks are larger than the float32 weights, each with the first such variable."""
    found: dict[Rule, keras.Variable] = {}
    for variable in variables:
        rule = precision.rule_of(variable)
        if rule.block and rule not in found:
            codebooks = -(-variable.shape[-1] // rule.block)
            size = int(np.prod(variable.shape))
            if size + 4 * ENTRIES * codebooks >= 4 * size:
                found[rule] = variable
    return list(found.items())


def unused_rules(precision: Precision, variables: Sequence[keras.Variable]) -> list[Rule]:
    """Returns the rules, other than `*`, whose pattern matches no variable, probably because it is misspelt."""
    paths = [variable.path for variable in variables]
    return [r for r in precision.rules if r.pattern != "*" and not fnmatch.filter(paths, r.pattern)]


def _rule(text: str, whole: str) -> Rule:
    pattern, separator, kind = text.rpartition(":")
    kind, at, block = kind.partition("@")
    if kind not in KINDS or (separator and not pattern):
        raise InputError(
            f"--precision={whole}: '{text}' is not a rule; write float16, float32 or cluster, or pattern:precision,"
            " such as 'dense*:cluster,*:float16'"
        )
    if at and (kind != "cluster" or not block.isdecimal() or int(block) < 1):
        raise InputError(f"--precision={whole}: '{text}': write cluster@N for a codebook of every N outputs")
    return Rule(pattern or "*", kind, int(block) if at else None)  # type: ignore[arg-type]


def _read_list(path: str) -> Sequence[object]:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            entries = strict_yaml.read_yaml(file.read())
    except OSError as error:
        raise InputError(f"--precision={path}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--precision={path}: not valid YAML; quote patterns that begin with '*' ({reason})"
        ) from error
    if isinstance(entries, Mapping) or not isinstance(entries, list) or not entries:
        raise InputError(f"--precision={path}: not a list; write one rule, pattern:precision, per line")
    return entries
