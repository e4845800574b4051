"""Personal data: found by form, proved by checksum where there is one, replaced by a typed placeholder.

============= ==========================================================================================
``<email>``     an address with a name, ``@`` and a host with a dot
``<id-card>``   18 characters of a mainland ID card whose date exists and whose check digit is right
``<bank-card>`` 15 to 19 digits that begin like a card of UnionPay, Visa, Mastercard, JCB or Amex and pass Luhn's test
``<phone>``     a mainland mobile or land line, ``+`` and a country code, or an American number
``<ip>``        an IPv4 or IPv6 address that is routed in public; numbers of versions and sections are none
``<qq>``        five to eleven digits after ``QQ``
============= ==========================================================================================

What stands in a URL or in a line of code stays.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

from glm_data.text import defects

PLACEHOLDERS = {
    "email": "<email>",
    "id_card": "<id-card>",
    "bank_card": "<bank-card>",
    "phone": "<phone>",
    "ipv4": "<ip>",
    "ipv6": "<ip>",
    "qq": "<qq>",
}
_TRIGGERS = {
    "numbers": r"[0-9][0-9 ()（）.+-]{5,40}[0-9Xx]",
    "qq": r"[Qq扣企][Qq扣鹅]",
    "ipv6": r":[0-9A-Fa-f]{0,4}:",
}
"""Where to look closer for what: fast to search for, as each begins with one of few characters."""
_EMAIL = r"""(?<![A-Za-z0-9._%+/:@-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}
@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,6}[A-Za-z]{2,24}
(?![A-Za-z0-9@]|:[A-Za-z~/])"""
_NUMBERS = r"""
(?P<id_card>(?<![0-9A-Za-z.])[1-9][0-9]{5}(?:18|19|20)[0-9]{9}[0-9Xx](?![0-9A-Za-z]))
|(?P<bank_card>(?<![0-9A-Za-z.,+-])[3-6][0-9]{3}(?:[ -]?[0-9]{4}){2}[ -]?[0-9]{3,7}(?![0-9A-Za-z]))
|(?P<phone>(?<![0-9A-Za-z.+-])(?:(?:\+|00)?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}(?![0-9A-Za-z])
    |(?<![0-9A-Za-z.+-])(?:\(0[0-9]{2,3}\)|（0[0-9]{2,3}）|0[0-9]{2,3}[ -])[ ]?
     [2-9][0-9]{2,3}[ -]?[0-9]{4}(?![0-9A-Za-z-])
    |(?<![0-9A-Za-z.+-])\+[1-9][0-9]{0,2}[ -]?\(?[0-9]{1,4}\)?(?:[ -]?[0-9]{2,4}){2,3}(?![0-9A-Za-z])
    |(?<![0-9A-Za-z.+-])(?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}-)[2-9][0-9]{2}-[0-9]{4}(?![0-9A-Za-z-]))
|(?P<ipv4>(?<![0-9A-Za-z.:_-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z_-]|\.[0-9]))
"""
_IPV6 = r"(?<![0-9A-Za-z.:_-])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?![0-9A-Za-z:.])"
_QQ = r"""(?<![A-Za-z])(?:[Qq]{2}|扣扣|企鹅)(?:群|号码|号|群号)?[ ]?[:：]?[ ]?
(?P<number>[1-9][0-9]{4,10})(?![0-9A-Za-z.-])"""
_URL = r"""(?:[A-Za-z][A-Za-z0-9+.-]{1,15}://|\bwww\.)[^\s<>"'，。）】、]+"""
_CODE_START = (
    r"""\s*(?:\#\s*(?:include|define)|//|/\*|\*|<[!/?A-Za-z]|>>>|\$\s|import\s|from\s\S+\simport|(?:def|class)\s.*:)"""
)
_CODE_STRING = r"""[=({\[,]\s*["'][^"']*["']\s*[,)}\];]"""
_VERSION = r"(?i)(?:\bv|version|版本|ver\.?|release)[ :：]?\s?$"
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_CHARACTERS = "10X98765432"


_MOST_BEFORE, _MOST_AFTER = 66, 40
"""Characters before the ``@`` of an address, and after the first colons of an IPv6 address, that belong to it."""
_NAME_CHARACTERS = "".join(map(chr, (*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B)))) + "._%+-"


@lru_cache(maxsize=1)
def _patterns() -> dict[str, re.Pattern[str]]:
    named = {"email": _EMAIL, "numbers": _NUMBERS, "ipv6": _IPV6, "qq": _QQ, "url": _URL, "code start": _CODE_START,
             "code string": _CODE_STRING, "code block": r"\)\s*\{"}  # fmt: skip
    verbose = ("email", "numbers", "qq")
    patterns = {name: re.compile(text, re.VERBOSE if name in verbose else 0) for name, text in named.items()}
    triggers = {f"{name} trigger": re.compile(text) for name, text in _TRIGGERS.items()}
    return {**patterns, **triggers, "version": re.compile(_VERSION)}


def replace_personal(text: str, kinds: int = defects.PERSONAL) -> str:
    """Put placeholders in place of personal data; what one line holds does not depend on others.

    ``kinds`` are flags of :mod:`glm_data.text.defects`: of what there may be any.
    """
    parts, last = [], 0
    for start, end, kind in sorted(find_personal(text, kinds)):
        if start >= last and not _is_in_url_or_code(text, start, end):
            parts += [text[last:start], PLACEHOLDERS[kind]]
            last = end
    return "".join(parts) + text[last:] if parts else text


def find_personal(text: str, kinds: int = defects.PERSONAL) -> Iterator[tuple[int, int, str]]:
    """Start, end and kind of what has the form of personal data of ``kinds``, in no order."""
    if kinds & defects.MAIL:
        yield from _find_mail(text)
    if kinds & defects.NUMBER:
        for trigger in _patterns()["numbers trigger"].finditer(text):
            number = trigger.group()
            if sum(map(str.isdigit, number)) >= _FEWEST_DIGITS or number.count(".") >= 3:
                yield from _find_numbers(text, max(0, trigger.start() - 2), trigger.end() + 1)
    if kinds & defects.QQ:
        for trigger in _patterns()["qq trigger"].finditer(text):
            match = _patterns()["qq"].match(text, trigger.start())
            if match:
                yield *match.span("number"), "qq"
    if kinds & defects.COLONS:
        for trigger in _patterns()["ipv6 trigger"].finditer(text):
            first, behind = max(0, trigger.start() - 4), trigger.end() + _MOST_AFTER
            matches = _patterns()["ipv6"].finditer(text, first, behind)
            yield from ((*match.span(), "ipv6") for match in matches if is_public(match.group()))


def _find_mail(text: str) -> Iterator[tuple[int, int, str]]:
    at = text.find("@")
    while at >= 0:
        before = text[max(0, at - _MOST_BEFORE) : at]
        name = before[len(before.rstrip(_NAME_CHARACTERS)) :].lstrip("._%+-")
        match = _patterns()["email"].match(text, at - len(name)) if name else None
        if match:
            yield *match.span(), "email"
        at = text.find("@", at + 1)


_FEWEST_DIGITS = 7


def _find_numbers(text: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    found = _patterns()
    proofs = {"id_card": is_id_card, "bank_card": is_bank_card, "ipv4": is_address}
    for match in found["numbers"].finditer(text, start, end):
        kind = str(match.lastgroup)
        if kind in proofs and not proofs[kind](match.group()):
            continue
        before = text[max(0, match.start() - 12) : match.start()].rpartition("\n")[2]
        if kind != "ipv4" or not found["version"].search(before):
            yield *match.span(), kind


def _is_in_url_or_code(text: str, start: int, end: int) -> bool:
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    line = text[first : last if last >= 0 else len(text)]
    if is_code(line):
        return True
    urls = _patterns()["url"].finditer(line) if "://" in line or "www." in line else ()
    return any(url.start() + first <= start and end <= url.end() + first for url in urls)


def is_code(line: str) -> bool:
    """Whether a line looks like source code."""
    found = _patterns()
    return (
        line.rstrip()[-1:] in _CODE_ENDS
        or any(map(line.__contains__, _OPERATORS))
        or bool(found["code start"].match(line))
        or (("'" in line or '"' in line) and bool(found["code string"].search(line)))
        or ("{" in line and bool(found["code block"].search(line)))
    )


_CODE_ENDS = (";", "{", "}")
_OPERATORS = ("->", "=>", "==", "!=", "&&", "||")


def is_id_card(number: str) -> bool:
    """Whether 18 characters are the number of a mainland ID card: its date of birth exists, its check digit is right.

    ISO 7064 MOD 11-2, after GB 11643.
    """
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], _WEIGHTS, strict=True))
    if _CHECK_CHARACTERS[total % 11] != number[17].upper():
        return False
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return True


def is_bank_card(number: str) -> bool:
    """Whether digits begin and are as long as the number of a payment card, and pass Luhn's test."""
    digits = [int(character) for character in number if character.isdigit()]
    start = "".join(map(str, digits[:4]))
    lengths = next((lengths for first, lengths in _ISSUERS if start.startswith(first)), ())
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(digits) in lengths and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_ISSUERS: tuple[tuple[str | tuple[str, ...], tuple[int, ...]], ...] = (
    ("62", (16, 17, 18, 19)),
    ("4", (16,)),
    (("51", "52", "53", "54", "55"), (16,)),
    ("35", (16,)),
    (("34", "37"), (15,)),
)


def is_address(number: str) -> bool:
    """Whether four numbers are a public IPv4 address and not those of a section: two of them have two digits."""
    return sum(len(part) > 1 for part in number.split(".")) >= 2 and is_public(number)


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address is one that the internet routes."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False
