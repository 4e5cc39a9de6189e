"""A chat as text: the chat template of a model, rendered as transformers renders it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from atspeed_jax.items.tokenizer import CHAT_FILE, SETTINGS_FILE, read_settings

# What a template may write of the tokenizer's settings.
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
GIVEN = ("messages", "tools", "documents", "add_generation_prompt")  # variables that are always set


class PromptError(ValueError):
    """A text that cannot stand around items."""


class Chat:
    """The chats of one model."""

    def __init__(self, directory: Path, *, system: str, options: Mapping[str, Any], date: str):
        """Reads the chat template of a model.

        Args:
          directory: of the model.
          system: text of the system message; "" for a chat without one.
          options: further variables of the template.
          date: what the template reads as today, such as "2026-01-31"; "" for none.

        Raises:
          PromptError: no chat template, or one that cannot be read.
          TokenizerError: as `read_settings`.
        """
        self._directory, settings = directory, read_settings(directory)
        self._system = [{"role": "system", "content": system}] if system else []
        special = {name: _content(settings[name]) for name in SPECIAL if settings.get(name) is not None}
        self._variables = special | dict(options)
        environment, source = _environment(date), _source(settings, directory)
        try:
            self._template = environment.from_string(source)
            asked = meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateError as error:
            raise PromptError(f"the chat template of {directory} cannot be read: {error}") from error
        if unknown := sorted((asked & set(SPECIAL)) - settings.keys() - options.keys()):
            raise PromptError(
                f"the chat template of {directory} writes {unknown[0]}, which {SETTINGS_FILE} does not name: add it "
                "to that file, or null if the model has none"
            )

    def text(self, user: str) -> str:
        """Renders the chat in which the user says a text, up to the model's answer.

        Raises:
          PromptError: the template fails.
        """
        messages = [*self._system, {"role": "user", "content": user}]
        given = dict(zip(GIVEN, (messages, None, None, True), strict=True))
        try:
            return self._template.render(given | self._variables)
        except PromptError:
            raise
        except Exception as error:  # whatever the template does
            hint = "; leave system empty if the template takes no system message" if self._system else ""
            raise PromptError(
                f"the chat template of {self._directory} fails: {str(error).rstrip('.')}{hint}"
            ) from error


def _source(settings: Mapping[str, Any], directory: Path) -> str:
    """The chat template that transformers takes."""
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = {one["name"]: one["template"] for one in found}
    if isinstance(found, dict):
        if "default" not in found:
            raise PromptError(
                f"{directory} has the chat templates {', '.join(sorted(found))}, but none named default: write the one "
                f"to take into {directory / CHAT_FILE}"
            )
        found = found["default"]
    if not isinstance(found, str):
        raise PromptError(
            f"{directory} has no chat template, neither in {SETTINGS_FILE} nor as {CHAT_FILE}: put the one that the "
            "model was trained with there, or take prompt.kind='instruction' with the text of the chat as template"
        )
    return found


def _content(token: Any) -> str:
    """The text of a special token, which settings hold as text or with its fields."""
    return str(token["content"] if isinstance(token, dict) else token)


def _environment(date: str) -> ImmutableSandboxedEnvironment:
    """Templates come with a model, from anyone: they run in a sandbox."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str):
        raise jinja2.TemplateError(message)

    def strftime_now(form: str) -> str:
        if not date:
            raise PromptError(
                "the chat template writes today's date, so prompts would change from day to day: set prompt.date to "
                "the day that the model reads, such as 2026-01-31"
            )
        return datetime.datetime.fromisoformat(date).strftime(form)

    environment.filters["tojson"] = _json
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now, "namespace": _Names}
    return environment


def _json(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """Writes JSON whose characters are not escaped as in HTML, which jinja's filter
    does.
    """
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %} marks what a model was trained on: the
    text in between is written as it is.
    """

    tags = {"generation"}  # noqa: RUF012  # as jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller) -> str:
        return caller()


class _Names(Namespace):
    """A namespace without names that begin with an underscore, by which a template
    could leave the sandbox.
    """

    def __init__(*args, **kwargs):
        for name in dict(*args[1:], **kwargs):
            _check_name(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name, value):
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name):
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace of a chat template cannot have the name {name}")
