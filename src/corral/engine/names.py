"""Names for containers that nobody named: a trait and an animal of the herd."""

from __future__ import annotations

import secrets
from collections.abc import Callable

_TRAITS = (
    "agile amber bold brave breezy bright brisk calm candid clever cosy crisp daring deft eager early easy fair "
    "famous fleet fond frank free fresh gentle glad golden grand happy hardy honest humble jolly keen kind lively "
    "loyal lucid lucky mellow merry mild modest neat nimble noble patient placid plucky polite proud quick quiet "
    "ready rosy rugged serene sharp silver sleek smart snug solid spry steady stout sunny swift tidy trusty vivid "
    "warm wise witty young zesty"
).split()
_ANIMALS = (
    "alpaca antelope appaloosa argali aurochs banteng bison bongo buffalo burro camel caribou chamois colt cow "
    "deer dromedary eland elk ewe filly foal gaur gazelle gnu goat heifer hinny ibex impala kid kudu lamb llama "
    "longhorn mare markhor merino moose mouflon mule mustang muskox nyala okapi onager oryx ox palomino pinto "
    "pony pronghorn ram reindeer roan sheep springbok stallion steer takin tapir tahr urial vicuna wapiti "
    "waterbuck wisent yak zebra zebu"
).split()


def unused(taken: Callable[[str], bool]) -> str:
    """A fresh name that `taken` denies."""
    for _ in range(6):
        name = f"{secrets.choice(_TRAITS)}_{secrets.choice(_ANIMALS)}"
        if not taken(name):
            return name
    return f"{secrets.choice(_TRAITS)}_{secrets.choice(_ANIMALS)}_{secrets.token_hex(4)}"
