"""The command `query`: rows to a model server, its answers to standard output."""

import asyncio
import base64
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines import inputs
from pipelines.cli import App
from pipelines.errors import UserError
from pipelines.options import QueryOptions
from pipelines.serving.client import load
from pipelines.serving.client.base import Client, Columns, Refused, Signature, connect
from pipelines.serving.status import Code, StatusError

# What a server may answer because of one row among many. Other errors are the same for any row.
OF_A_ROW = {
    Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS,
}  # fmt: skip

Row = dict[str, Any]  # the value of each input


class BadRow(Exception):
    """A row that cannot be sent as it is. The message says why."""


def query(app: App, options: QueryOptions) -> None:
    """Has inputs from the arguments, a file or standard input answered by a server, or measures it with them."""
    rows = inputs.read(options)
    with asyncio.Runner() as runner:
        client = runner.run(_connect(app, options))
        try:
            signature = runner.run(client.signature())
            if _takes_files(signature):
                rows = rows.open_folders()
            if options.load:
                _measure(runner, client, signature, _good_rows(rows, signature, options), options)
            else:
                answers = _answers(lambda columns: runner.run(client.predict(columns)), rows.texts, signature, options)
                for answer in rows.good(answers, options):
                    _show(answer, signature, options)
        except StatusError as error:
            raise UserError(_explained(error, client, app)) from None
        finally:
            runner.run(client.close())


def _takes_files(signature: Signature) -> bool:
    """Whether rows are paths of files, whose bytes are sent."""
    return [name[-6:] for name in signature.inputs] == ["_bytes"]


async def _connect(app: App, options: QueryOptions) -> Client:
    return connect(
        options.api,
        options.url,
        options.model or app.name,
        version=options.version,
        label=options.label,
        signature=options.signature,
        timeout=options.timeout,
        retries=options.retries,
        report=lambda line: print(line, file=sys.stderr),
    )


def _explained(error: StatusError, client: Client, app: App) -> str:
    """A failure in one line, with its remedy where there is a likely one."""
    line = f"{client.address}: {error}"
    if isinstance(error, Refused):
        line = f"{client.address}: {error.message}; start a server with: python -m apps.{app.name} serve"
    elif error.code is Code.DEADLINE_EXCEEDED:
        line = f"{client.address}: {error.message}; wait longer with --timeout"
    elif error.code is Code.NOT_FOUND:
        line += f" (asked for --model {client.model}{'' if client.version is None else f' --version {client.version}'})"
    return " ".join(line.split())


def _answers(
    ask: Callable[[Columns], dict[str, list]], texts: Sequence[str], signature: Signature, options: QueryOptions
) -> Iterator[dict]:
    """Answers in the order of the rows: {"outputs": ...}, or the number and the error of a bad row.

    Where the server refuses a batch its rows are sent one by one, so that a bad one takes no good one along.
    """
    for begin in range(0, len(texts), options.batch_size):
        some = texts[begin : begin + options.batch_size]
        batch = [_row(text, signature) for text in some]
        good = [row for row in batch if isinstance(row, dict)]
        answers = iter(_ask(ask, good) if good else [])
        for number, (text, row) in enumerate(zip(some, batch, strict=True), begin + 1):
            answer = row if isinstance(row, BadRow) else next(answers)
            if answer is not row and isinstance(answer, BadRow) and _takes_files(signature):
                answer = BadRow(f"{text}: {answer}")  # the server knows no file's name
            yield _result(number, "outputs", answer)


def _ask(ask: Callable[[Columns], dict[str, list]], rows: Sequence[Row]) -> Iterator[dict | BadRow]:
    try:
        yield from _split(ask({name: [row[name] for row in rows] for name in rows[0]}), len(rows))
        return
    except StatusError as error:
        if error.code not in OF_A_ROW:
            raise
        if len(rows) == 1:
            yield BadRow(_said(error.message))
            return
    for row in rows:
        yield from _ask(ask, [row])


def _said(message: str) -> str:
    """What a server says of a row, without TensorFlow's names of nodes: for an assertion what it asserts."""
    if said := re.search(r"assertion failed: \[(.*?)\]", message, re.DOTALL):
        return said[1]
    return " ".join(re.sub(r"\[\[.*?\]\]", "", message, flags=re.DOTALL).split())


def _result(number: int, name: str, found: dict | BadRow) -> dict:
    return {"row": number, "error": str(found)} if isinstance(found, BadRow) else {name: found}


def _split(outputs: Mapping[str, list], count: int) -> list[dict]:
    """Outputs of a batch as those of each row."""
    for name, found in outputs.items():
        if not isinstance(found, list) or len(found) != count:
            raise UserError(f"output '{name}' has no item for each row; the model does not answer row by row")
    return [{name: found[index] for name, found in outputs.items()} for index in range(count)]


def _row(text: str, signature: Signature) -> Row | BadRow:
    """What a row's text says of each input, or why it says nothing."""
    try:
        return _parse(text, signature)
    except BadRow as error:
        return error


def _parse(text: str, signature: Signature) -> Row:
    takes = signature.inputs
    named = _object(text)
    (only, tensor), *others = takes.items() if takes else [("", None)]
    if takes and not others and tensor.dtype == "DT_STRING" and tensor.shape in ((-1,), None):
        if named is None or named.keys() != takes.keys():  # a text may well look like JSON
            if not text:
                raise BadRow("empty")
            named = {only: text}
    if named is None or named.keys() != takes.keys():
        example = json.dumps({name: "..." for name in takes})
        found = f"found {', '.join(map(repr, named)) or 'no name'}" if named is not None else "found no JSON object"
        raise BadRow(f"the model takes {_listed(signature)}: give a JSON object such as {example}; {found}")
    return {name: _value(name, value, takes[name].dtype) for name, value in named.items()}


def _object(text: str) -> dict | None:
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _listed(signature: Signature) -> str:
    return ", ".join(f"{name} ({tensor.dtype})" for name, tensor in signature.inputs.items()) or "no inputs"


def _value(name: str, value: Any, dtype: str) -> Any:
    if dtype != "DT_STRING" or not name.endswith("_bytes") or not isinstance(value, str):
        return value
    try:
        return Path(value).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadRow(f"{value}: {reason.lower()}; '{name}' takes the path of a file") from None


def _show(answer: dict, signature: Signature, options: QueryOptions) -> None:
    if options.json:
        print(json.dumps(answer.get("outputs", answer), ensure_ascii=False, default=_b64))
    elif "error" in answer:
        print()  # so that answers stay aligned with a file of inputs
    else:
        found = answer["outputs"][_principal(signature)]
        print(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=_b64))


def _principal(signature: Signature) -> str:
    """The output to print: the first of strings, one a row, else of lists of strings, else of all."""
    outputs = signature.outputs

    def rank(name):
        tensor = outputs[name]
        return tensor.dtype != "DT_STRING", len(tensor.shape) if tensor.shape else 1, name

    return min(outputs, key=rank)


def _b64(value: bytes) -> dict:
    return {"b64": base64.b64encode(value).decode()}


def _good_rows(rows: inputs.Rows, signature: Signature, options: QueryOptions) -> list[Row]:
    results = (_result(number, "inputs", _row(text, signature)) for number, text in enumerate(rows.texts, 1))
    good = [found["inputs"] for found in rows.good(results, options) if "inputs" in found]
    if not good:
        raise UserError(f"{rows.source}: no row that can be sent")
    return good


def _measure(
    runner: asyncio.Runner, client: Client, signature: Signature, rows: Sequence[Row], options: QueryOptions
) -> None:
    requests = [client.encode(signature, {name: [value] for name, value in row.items()}) for row in rows]
    report = load.Report(options.concurrency)
    try:
        runner.run(load.run(client.send, requests, options.load, report))
    finally:  # what was measured before an interruption too
        print(json.dumps(report.summary()) if options.json else report)
