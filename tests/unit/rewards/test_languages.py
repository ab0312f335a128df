"""Answers in other languages than English: right ones are read, and hedges, denials and unknown sentences are not."""

from __future__ import annotations

import logging
import time

import pytest

from kepo.rewards import choice_accuracy, match_option
from kepo.rewards.languages import note_unread_languages, plain_marks, translated

ENGLISH = ("Cyst", "Tumour", "Stone", "Normal")
OPTIONS = {
    "zh": ("肺炎", "肺结核", "正常", "肺癌"),
    "ja": ("肺炎", "肺結核", "正常", "肺がん"),
    "ko": ("폐렴", "폐결핵", "정상", "폐암"),
    "es": ("Neumonía", "Tuberculosis", "Normal", "Cáncer de pulmón"),
    "de": ("Lungenentzündung", "Tuberkulose", "Normalbefund", "Lungenkrebs"),
    "fr": ("Pneumonie", "Tuberculose", "Normal", "Cancer du poumon"),
    "pt": ("Pneumonia", "Tuberculose", "Normal", "Câncer de pulmão"),
    "ar": ("التهاب رئوي", "السل", "طبيعي", "سرطان الرئة"),
}

RIGHT = {
    "zh": [
        "B。",
        "Ｂ",
        "【B】",
        "（Ｂ）",
        "「B」",
        "答案是B",
        "答案为B",
        "答案：Ｂ",
        "正确答案是B。",
        "选B",
        "应选B。",
        "我选择B选项。",
        "B选项",
        "选项B",
        "B项",
        "故选B。",
        "B是正确答案",
        "B正确",
        "B、肺结核",
        "B（肺结核）",
        "肺结核。",
        "是肺结核",
        "答案是肺结核",
        "诊断为肺结核",
        "不是A，而是B",
        "不是A而是B",
        "答案是B，因为上叶有空洞",
        "答案是B，不是A",
        "不是肺炎，是肺结核",
    ],
    "ja": [
        "正解はBです",
        "答えはBです。",
        "正解は「B」です。",
        "Bが正解です",
        "Bです",
        "Bである。",
        "選択肢B",
        "Bを選びます",
        "Bだと思います",
        "正解は肺結核です",
        "これは肺結核です。",
        "肺結核です",
    ],
    "ko": [
        "정답은 B입니다",
        "정답: B",
        "답은 B입니다.",
        "B번",
        "정답은 B번입니다.",
        "B가 정답입니다",
        "보기 B",
        "정답은 (B)입니다",
        "폐결핵입니다",
        "정답은 폐결핵입니다",
        "이것은 폐결핵입니다.",
    ],
    "es": [
        "La respuesta es B",
        "La respuesta correcta es la B.",
        "Opción B",
        "La opción B es correcta",
        "Es la B.",
        "La B",
        "¡B!",
        "Elijo B",
        "No es A, es B",
        "La respuesta es B, no A",
        "Es tuberculosis.",
        "Se trata de una tuberculosis",
    ],
    "de": [
        "Die Antwort ist B",
        "Die richtige Antwort lautet B",
        "Antwort B",
        "B ist richtig",
        "Richtig ist B",
        "Nicht A, sondern B",
        "Es ist eine Tuberkulose",
        "Die Antwort ist Tuberkulose",
    ],
    "fr": [
        "La réponse est B.",
        "La bonne réponse est la B",
        "C’est la B.",
        "L'option B",
        "Ce n'est pas A, c'est B",
        "La réponse est « B »",
        "Il s'agit d'une tuberculose",
        "C'est une tuberculose",
    ],
    "pt": [
        "A resposta é B",
        "A alternativa correta é a B",
        "Letra B",
        "É B",
        "B está correta",
        "Não é A, é B",
        "A resposta é tuberculose.",
    ],
    "ar": [
        "الإجابة هي ب",
        "الإجابة هي B",
        "الإجابة الصحيحة هي (ب)",
        "الجواب: ب",
        "ب",
        "الخيار ب",
        "الإجابة: B، لأن",
        "الإِجَابَةُ هِيَ ب",
        "هذا السل",
        "الإجابة هي السل",
    ],
}
NONE = {
    "zh": [
        "不是B",
        "不选B",
        "答案不是B",
        "B不对",
        "B选项不正确",
        "选项B错误",
        "B或C",
        "A或者B选项",
        "B还是C",
        "B、C",
        "不太可能是B",
        "不应选B",
        "答案可能是B，也可能是C",
        "除了B",
        "不是B就是C",
        "要么A要么B",
        "答案是B吗？不，是C",
        "B超",
        "答案是B超",
        "维生素B",
        "不是肺结核",
        "没有肺结核",
        "非肺结核",
        "肺炎或肺结核",
        "肺结核球",
        "不像肺结核",
    ],
    "ja": [
        "Bではない",
        "正解はBではありません。",
        "BかC",
        "正解はBまたはCです",
        "B以外",
        "Bは正解ではない",
        "Bである可能性は低い",
        "肺結核ではない",
        "肺炎または肺結核です",
    ],
    "ko": [
        "B가 아닙니다",
        "정답은 B가 아닙니다",
        "정답은 B 또는 C입니다",
        "B는 틀렸습니다",
        "폐결핵이 아닙니다",
        "폐렴 또는 폐결핵입니다",
    ],
    "es": [
        "No es B",
        "La respuesta no es B",
        "La respuesta nunca es B",
        "La respuesta es B o C",
        "B no es correcta",
        "excepto B",
        "La opción B es incorrecta",
        "Ni A ni B",
        "La respuesta es B, o quizás C",
        "No es tuberculosis",
        "sin tuberculosis",
        "neumonía o tuberculosis",
        "no hay tuberculosis",
    ],
    "de": [
        "nicht B",
        "Die Antwort ist nicht B",
        "Die Antwort ist B oder C",
        "Weder A noch B",
        "Option B ist falsch",
        "Antwort B ist nicht richtig",
        "Es ist keine Tuberkulose",
        "Lungenentzündung oder Tuberkulose",
        "alles außer B",
    ],
    "fr": [
        "Ce n'est pas B",
        "La réponse n'est pas B",
        "La réponse est B ou C",
        "B n'est pas correct",
        "sauf B",
        "C'est B, peut-être C",
        "ce n'est pas une tuberculose",
        "pas de tuberculose",
        "pneumonie ou tuberculose",
    ],
    "pt": [
        "não é B",
        "A resposta não é B",
        "A resposta é B ou C",
        "B não é correta",
        "B está errada",
        "nunca é B",
        "não é tuberculose",
        "pneumonia ou tuberculose",
    ],
    "ar": ["ليست B", "الإجابة ليست ب", "الإجابة هي ب أو ج", "لا أختار ب", "ليس السل", "التهاب رئوي أو السل"],
}


@pytest.mark.parametrize(("language", "answer"), [(name, text) for name, texts in RIGHT.items() for text in texts])
def test_an_answer_is_read(language: str, answer: str) -> None:
    assert match_option(answer, OPTIONS[language]) == "B"


@pytest.mark.parametrize(("language", "answer"), [(name, text) for name, texts in NONE.items() for text in texts])
def test_a_denial_a_hedge_or_an_unknown_sentence_is_no_answer(language: str, answer: str) -> None:
    assert match_option(answer, OPTIONS[language]) is None


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("正解はBです", ENGLISH, "B"),
        ("答案是CT。", ("MRI", "CT"), "B"),
        ("正确答案不是CT", ("MRI", "CT"), None),
        ("정답은 CT입니다", ("MRI", "CT"), "B"),
        ("是", ("否", "是"), "B"),
        ("答案是是", ("否", "是"), "B"),
        ("不是", ("是", "否"), None),
        ("不正常", ("正常", "肿瘤"), None),
        ("Sí.", ("No", "Sí"), "B"),
        ("Neumonia", ("Normal", "Neumonía"), "B"),
        ("5.0", ("3", "5"), "B"),
        ("5.00 mm", ("3 mm", "5 mm"), "B"),
        ("5.0", ("5", "5.0"), "B"),
        ("50", ("5", "3"), None),
    ],
)
def test_options_of_other_kinds(answer: str, options: tuple[str, ...], letter: str | None) -> None:
    assert match_option(answer, options) == letter


@pytest.mark.parametrize("text", ["The answer is B", "No, it is die casting", "car or sin, a no", "B. It is a cyst."])
def test_english_is_left_alone(text: str) -> None:
    assert translated(plain_marks(text)) is None


def test_options_of_a_script_without_cue_words_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        note_unread_languages([ENGLISH, *OPTIONS.values(), ("α-Fetoprotein", "µ-receptor"), None])
        assert not caplog.records
        note_unread_languages([("Пневмония", "Норма"), ("Киста", "Камень")])
    [record] = caplog.records
    assert "2 questions are in Cyrillic script" in record.getMessage()


@pytest.mark.parametrize(
    "unit", ["\n", " \n", "1,", "-", "*a ", "不是B，", "答案", "no es ", "A or ", "<answer>", "</think>"]
)
def test_reading_takes_linear_time(unit: str) -> None:
    text = f"<answer>{(unit * 16_000)[:16_000]}</answer>"
    start = time.process_time()
    choice_accuracy([text], ["A"], [ENGLISH])
    choice_accuracy([text], ["A"], [OPTIONS["zh"]], ["plain"])
    assert time.process_time() - start < 1.5
