"""Response models of the HTTP endpoints, and the errors that OpenAPI declares beside them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from positronic.offboard.serving.metrics import LatencyRow
from positronic.offboard.session import SessionState


class Readiness(BaseModel):
    """Evidence that the server is ready."""

    ready: bool = Field(description="Whether new sessions are welcome.")
    inferences: int = Field(description="Observations answered so far.")
    last_cost_ms: float | None = Field(
        description="Milliseconds that the last answer took; null before the first one."
    )
    default: str = Field(description="The checkpoint of a session that names none.")


class Unready(Readiness):
    """Why new sessions should go elsewhere."""

    reason: str = Field(description="Such as `draining`.")


class Checkpoints(BaseModel):
    """Names of checkpoints."""

    models: list[str] = Field(
        description="Each can stand in the path of a session; empty if they cannot be listed."
    )


class ServerStatus(BaseModel):
    """The server itself."""

    version: str = Field(description="Of the package `positronic-lightning`.")
    started: str = Field(
        description="When it was started, in UTC.", json_schema_extra={"format": "date-time"}
    )
    uptime_s: float = Field(description="Seconds since then.")
    ready: bool = Field(description="Whether new sessions are welcome.")
    draining: bool = Field(description="Whether it was told to end.")
    inferences: int = Field(description="Observations answered so far.")
    last_cost_ms: float | None = Field(
        description="Milliseconds that the last answer took; null before the first one."
    )
    max_sessions: int = Field(description="The most that may be open at once.")
    memory_bytes: int = Field(description="The most that all models together may hold.")
    docs: bool = Field(description="Whether there is a page of the endpoints at `/docs`.")


class ModelStatus(BaseModel):
    """A checkpoint in memory, or on its way there."""

    id: str = Field(description="The name of the checkpoint.")
    state: Literal["loading", "ready"]
    default: bool = Field(description="Whether sessions get it that name none.")
    type: str | None = Field(description="The policy, such as `act`; null while it loads.")
    backend: str | None = Field(description="What predicts; null while it loads.")
    precision: str | None = Field(description="Such as `float32`; null while it loads.")
    device: str | None = Field(description="Such as `cpu`; null while it loads.")
    dataset: str | None = Field(description="What it was trained on; null if it does not say.")
    dropped: int = Field(description="Recordings that edits had left out of that dataset.")
    nbytes: int = Field(description="Bytes that it holds; while it loads, the estimate.")
    sessions: int = Field(description="Sessions that use it or wait for it.")
    waiting: int = Field(description="Observations in its queue.")
    idle_s: float = Field(description="Seconds since a session of it last began or ended.")


class SessionStatus(BaseModel):
    """An open session."""

    name: str = Field(description="As the log has it.")
    client: str = Field(description="Address and port of the client.")
    model: str | None = Field(description="The checkpoint; null until one is chosen.")
    state: SessionState
    age_s: float = Field(description="Seconds since it was opened.")
    idle_s: float = Field(description="Seconds since its last answer.")
    inferences: int = Field(description="Observations answered so far.")
    errors: int = Field(description="Errors answered so far.")
    task: str = Field(description="Of the last observation, cut where it is long.")


class Latency(BaseModel):
    """Where the time of the last answers went."""

    columns: tuple[str, str, str, str, str, str] = Field(
        description="What the numbers of a row are."
    )
    rows: list[LatencyRow] = Field(
        description="One for each answer, oldest first. `at` is in seconds since 1970; a batch of"
        " 0 means that the session still had actions and nothing was predicted."
    )


class Status(BaseModel):
    """What the status page shows."""

    server: ServerStatus
    models: list[ModelStatus]
    sessions: list[SessionStatus] = Field(description="Oldest first.")
    latency: Latency
    failures: dict[str, int] = Field(description="How many of each reason, since the start.")


Declared = dict[int | str, dict[str, Any]]
_TOO_MANY = "too many connections"


def errors(has_token: bool) -> Declared:
    """Declare the errors of requests that are refused before they reach an endpoint."""
    declared: Declared = {
        400: _in_words("The request, or its Host header, is malformed."),
        408: _in_words("The request did not come in time."),
        413: _in_words("The request has a body."),
        431: _in_words("The head of the request is too large."),
        503: _in_words(f"Unavailable: {_TOO_MANY}."),
    }
    if not has_token:
        declared[403] = _in_words(
            "The Host header is not a name of this server, which has no token."
        )
    return declared


def refusals(has_token: bool) -> Declared:
    """Declare the response to a request without the token; nothing if the server has none."""
    if not has_token:
        return {}
    header = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return {401: {**_in_words("The token is missing or wrong."), "headers": header}}


def unavailable(why: str, model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Declare an endpoint's own 503, beside that of too many connections."""
    declared = _in_words(f"Unavailable: {why}, or {_TOO_MANY}.")
    if model is not None:
        # FastAPI adds the schema; pages show the first content type.
        content = {"application/json": {}, **declared["content"]}
        declared = {**declared, "content": content, "model": model}
    return declared


def _in_words(description: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {"description": description, "content": content}
