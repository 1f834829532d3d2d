"""A conversation: an optional system prompt, then turns of the user and the assistant.

A `Conversation` is well formed by construction.  Its messages, the system prompt left out, never
have two of one role side by side, and the last one is the user's.  Templates rely on it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal, Self, cast, get_args

__all__ = ["Conversation", "ConversationError", "Message", "Role"]

Role = Literal["system", "user", "assistant"]

_ROLES: tuple[str, ...] = get_args(Role)


class ConversationError(ValueError):
    """The messages don't make a conversation; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.  The role is ours, the text is its author's."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a prompt template renders.

    `messages` holds the turns alone; `all_messages` puts the system prompt before them.
    """

    system_prompt: str
    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role != "user":
            raise ConversationError("the last message must be the user's")
        if any(message.role == "system" for message in self.messages):
            raise ConversationError("only the first message can be the system's")
        if any(a.role == b.role for a, b in pairwise(self.messages)):
            raise ConversationError("the messages must be the user's and the assistant's in turn")

    @classmethod
    def from_texts(cls, texts: Sequence[str], system_prompt: str = "") -> Self:
        """Make a conversation of texts that are the user's and the assistant's in turn.

        Raises ConversationError unless the number of texts is odd, so that the user has the last
        word.
        """
        if not texts:
            raise ConversationError("there must be at least one message")
        if len(texts) % 2 == 0:
            raise ConversationError(
                f"there are {len(texts)} messages, but the number must be odd: they are the user's"
                " and the assistant's in turn, and the last one must be the user's"
            )
        roles: tuple[Role, Role] = ("user", "assistant")
        return cls(
            system_prompt,
            tuple(Message(roles[index % 2], text) for index, text in enumerate(texts)),
        )

    @classmethod
    def from_messages(cls, messages: Iterable[tuple[str, str]], system_prompt: str = "") -> Self:
        """Make a conversation of (role, text) pairs, as chat interfaces pass them.

        Consecutive messages of one role are joined by a newline.  A system message at the
        beginning replaces `system_prompt`.
        """
        turns: list[Message] = []
        for role, group in groupby(messages, key=lambda message: message[0]):
            if role not in _ROLES:
                raise ConversationError(
                    f"unknown role {role!r}: a role is one of {', '.join(_ROLES)}"
                )
            turns.append(Message(cast(Role, role), "\n".join(text for _, text in group)))
        if turns and turns[0].role == "system":
            system_prompt = turns.pop(0).text
        return cls(system_prompt, tuple(turns))

    @property
    def all_messages(self) -> tuple[Message, ...]:
        """The messages, with the system prompt, if there is one, as the first."""
        if not self.system_prompt:
            return self.messages
        return (Message("system", self.system_prompt), *self.messages)
