"""A teacher behind one or several servers: hints from any OpenAI-compatible one, token distributions from vLLM."""

from kepo.teachers.remote.teacher import RemoteTeacher

__all__ = ["RemoteTeacher"]
