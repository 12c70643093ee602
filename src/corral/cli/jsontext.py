"""JSON for the client's commands: `corral.jsontext`, which the Python API's lower rooms use too."""

from __future__ import annotations

from corral.jsontext import Nil, NilList, NilMap, dumps, indented, loads

__all__ = ["Nil", "NilList", "NilMap", "dumps", "indented", "loads"]
