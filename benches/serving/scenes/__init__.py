"""All scenes, in the order of the table."""

from serving.bench import Scene
from serving.scenes import copying, crowded, parts, prompts, server_bound, start, streams

SCENES: tuple[Scene, ...] = (
    *streams.SCENES,
    *server_bound.SCENES,
    *prompts.SCENES,
    *parts.SCENES,
    *copying.SCENES,
    *crowded.SCENES,
    *start.SCENES,
)
