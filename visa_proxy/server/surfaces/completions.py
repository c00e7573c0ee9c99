"""POST /v1/completions."""

from __future__ import annotations

from visa_proxy.errors import RequestError
from visa_proxy.server.surfaces.base import Json, Key, Slot, json_type, positive
from visa_proxy.server.surfaces.choices import ChoicesDecoder, choices_of, json_asked, label, slot


class CompletionsDecoder(ChoicesDecoder):
    """Chunks with pieces of text."""

    def _take(self, choice: Json) -> tuple[str, Json | None, Json | None]:
        text = choice.get("text")
        trails = choice.get("finish_reason") is not None
        if not isinstance(text, str) or not text:
            return "", None if trails else choice, choice if trails else None
        return text, None, {**choice, "text": ""} if trails else None

    def _put(self, choice: Json, text: str) -> Json:
        return {**choice, "text": text}

    def _without_text(self, choice: Json) -> str:
        return "skipped:empty"


class CompletionsSurface:
    """A prompt in, its continuation out."""

    path = "/completions"
    listed = "choices"

    def check(self, data: Json) -> None:
        """See Surface."""
        prompt = data.get("prompt")
        if prompt is None and not data.get("prompt_embeds"):
            raise RequestError("you must provide a prompt parameter", param="prompt")
        if prompt is not None and not isinstance(prompt, str | list):
            raise RequestError(
                f"'prompt' must be a string or an array, got {json_type(prompt)}", param="prompt", code="invalid_type"
            )
        positive(data, "n")

    def skip(self, data: Json) -> str | None:
        """See Surface. With `echo` the text begins with the prompt; with `suffix` it must meet what follows."""
        if data.get("logprobs") is not None and data["logprobs"] is not False:  # 0 asks for those of the chosen tokens
            return "skipped:logprobs"
        if data.get("echo"):
            return "skipped:echo"
        return "skipped:infill" if data.get("suffix") else None

    def json_asked(self, data: Json) -> bool:
        """See Surface."""
        return json_asked(data)

    def query(self, data: Json, key: Key) -> str:
        """The prompt that the choice continues; of several, each has `n` choices in a row."""
        prompt = data.get("prompt")
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            place = key[0] // (data.get("n") or 1)
            prompt = prompt[place] if place < len(prompt) else None
        return prompt if isinstance(prompt, str) else ""

    def slots(self, body: Json) -> list[Slot]:
        """See Surface."""
        return [slot(index, choice, "text", "skipped:empty") for index, choice in choices_of(body)]

    def label(self, key: Key) -> Json:
        """See Surface."""
        return label(key)

    def decoder(self) -> CompletionsDecoder:
        """See Surface."""
        return CompletionsDecoder()
