"""The words of reports, and the class `Topic`.

Templates have slots in braces. Every template may use the slots of its topic and `place`, `day`, `start` (a month),
`number`, `first` and `last` (a person), which are facts of the report. Asides use `elsewhere`, `another_day`,
`another_number`, `month` and `witness` instead, which are never facts.
"""

from collections.abc import Mapping
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = _words("January February March April May June July August September October November December")
TOWNS = _words(
    """
    Alston Ashby Barwick Belford Bexley Birling Bolton Brampton Calder Carrick Chester Clifton Corby
    Cromer Dalton Denholm Dover Dunmore Easton Elgin Fairford Falmouth Farnham Felton Garston Glenrow
    Grantham Hadley Halton Harwich Helmsley Hexham Ilford Irvine Kelso Kendal Kilmore Langley Larne
    Linton Ludlow Malden Marlow Melrose Milford Morley Nairn Newbury Norton Oakham Orford Penrith
    Preston Radley Ripon Rothbury Selby Skipton Stanhope Tenby Thirsk Ulverton Wenlock Whitby Yarmouth
    """
)
FIRST_NAMES = _words(
    """
    Aisha Alan Anna Ben Carla Daniel Elena Emma Felix George Hannah Ines Ivan James Julia Karim Laura
    Leo Maria Martin Nadia Nina Omar Oscar Paula Peter Rosa Samuel Sofia Tom Vera Yusuf
    """
)
LAST_NAMES = _words(
    """
    Adeyemi Archer Baker Bishop Carter Castle Chen Cole Dixon Doyle Ellis Evans Fisher Flynn Garcia
    Grant Hart Hughes Ito Jensen Jones Kaur Keller Lewis Lopez Marsh Miller Moreno Murphy Novak Okafor
    Olsen Parker Patel Quinn Reid Rossi Shah Stone Suzuki Tanner Turner Vance Walsh Weber Wood Young
    Zeller
    """
)
FEW = tuple(str(number) for number in range(3, 60))
MANY = tuple(str(number) for number in range(110, 1000, 10))


@dataclass(frozen=True)
class Topic:
    """A topic: a lead, then details and an outcome in any order, and a summary of one sentence.

    `outcomes` maps the words of the summary to the sentences that may express them in the report.
    """

    name: str
    numbers: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]
    leads: tuple[str, ...]
    details: tuple[tuple[str, ...], ...]
    outcomes: Mapping[str, tuple[str, ...]]
    asides: tuple[str, ...]
    summary: str


GENERAL_ASIDES = (
    "{witness} of {elsewhere} said it had been a long week.",
    "{witness}, who lives in {elsewhere}, saw it on the news.",
    "The mayor of {elsewhere}, {witness}, sent a message on {another_day}.",
    "A fair in {elsewhere} drew {another_number} visitors in {month}.",
    "Roads around {elsewhere} were busy with {another_number} cars an hour.",
    "A meeting about the budget will be held in {elsewhere} on {another_day}.",
    "Local radio in {elsewhere} took {another_number} calls about it.",
    "The market in {elsewhere} moves to {another_day} from {month}.",
    "{witness} wrote a book about {elsewhere} in {month}.",
    "It had been a quiet {month} until then.",
    "A reporter from {elsewhere} arrived on {another_day}.",
    "The newspaper in {elsewhere} printed {another_number} letters on the subject.",
)
