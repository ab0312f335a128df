"""Hints in other languages than English: those that give the answer away, and ordinary ones."""

from __future__ import annotations

import time

import pytest

from kepo.exploration.leaks import audit, strip_leaks

ZH = ("肺炎", "肺结核", "正常", "肺癌")
JA = ("肺炎", "肺結核", "正常", "肺がん")
KO = ("폐렴", "폐결핵", "정상", "폐암")
ES = ("Neumonía", "Tuberculosis", "Normal", "Cáncer de pulmón")
DE = ("Lungenentzündung", "Tuberkulose", "Normalbefund", "Zyste")
FR = ("Pneumonie", "Tuberculose", "Normal", "Cancer du poumon")
PT = ("Pneumonia", "Tuberculose", "Normal", "Câncer de pulmão")
AR = ("التهاب رئوي", "السل", "طبيعي", "سرطان الرئة")

LEAKS = [
    ("应选择B。", "B", ZH),
    ("选项B描述得最准确", "B", ZH),
    ("B选项更符合", "B", ZH),
    ("注意上叶空洞，答案就是B", "B", ZH),
    ("可以排除A、C和D", "B", ZH),
    ("请注意，肺结核常见于上叶。", "B", ZH),
    ("考虑肺结核。", "B", ZH),
    ("不是肺结核", "B", ZH),
    ("第二个选项", "B", ZH),
    ("选Ｂ", "B", ZH),
    ("所以B正确。", "B", ZH),
    ("A、C、Dは除外できます。", "B", JA),
    ("Se debe elegir B", "B", ES),
    ("Descarta A, C y D.", "B", ES),
    ("Man kann A, C und D ausschließen.", "B", DE),
    ("Éliminez A, C et D.", "B", FR),
    ("**B**", "B", ZH),
    ("（B）", "B", ZH),
    ("B、C中选B", "B", ZH),
    ("指向B", "B", ZH),
    ("B最符合", "B", ZH),
    ("選択肢Bを選んでください", "B", JA),
    ("答えはBになります。", "B", JA),
    ("これは肺結核の所見です", "B", JA),
    ("2番目の選択肢", "B", JA),
    ("Bが正しい", "B", JA),
    ("Bが正解です。", "B", JA),
    ("がんではなく肺結核", "B", JA),
    ("정답은 B번입니다", "B", KO),
    ("폐결핵의 소견", "B", KO),
    ("B가 정답입니다", "B", KO),
    ("두 번째 선택지", "B", KO),
    ("보기 B를 보세요", "B", KO),
    ("B를 선택하세요", "B", KO),
    ("La opción B encaja mejor", "B", ES),
    ("Elige B", "B", ES),
    ("Se observa una tuberculosis", "B", ES),
    ("neumonia", "A", ES),
    ("la segunda opción", "B", ES),
    ("La respuesta correcta es la B", "B", ES),
    ("Piensa en NEUMONÍA.", "A", ES),
    ("Wähle B", "B", DE),
    ("Die richtige Antwort lautet B.", "B", DE),
    ("mehrere Zysten", "D", DE),
    ("die zweite Antwort", "B", DE),
    ("Antwort B passt", "B", DE),
    ("LUNGENENTZUNDUNG", "A", DE),
    ("La bonne réponse est B", "B", FR),
    ("choisissez B", "B", FR),
    ("des cancers du poumon? cancer du poumon", "D", FR),
    ("la deuxième option", "B", FR),
    ("C'est B.", "B", FR),
    ("la réponse B", "B", FR),
    ("A alternativa B é a certa", "B", PT),
    ("A resposta é B", "B", PT),
    ("cancer de pulmao", "D", PT),
    ("a segunda alternativa", "B", PT),
    ("marque a letra B", "B", PT),
    ("الإجابة هي ب", "B", AR),
    ("الإجابة الصحيحة هي B", "B", AR),
    ("اختر ب", "B", AR),
    ("الالتهاب الرئوي واضح", "A", AR),
    ("يدل على السل", "B", AR),
    ("وسل في الفص", "B", AR),
    ("الخيار الثاني", "B", AR),
    ("اِلْتِهَابٌ رِئَوِيّ", "A", AR),
    ("答案是是。", "A", ("是", "否")),
    ("答案：否", "B", ("是", "否")),
    ("这是右。", "B", ("左", "右")),
    ("应选左", "A", ("左", "右")),
    ("答案是肺。", "A", ("肺", "心")),
    ("La respuesta es sí.", "A", ("Sí", "No")),
    ("Die Antwort ist ja", "A", ("Ja", "Nein")),
    ("la réponse est oui", "A", ("Oui", "Non")),
    ("답: 예", "A", ("예", "아니요")),
    ("答えははい。", "A", ("はい", "いいえ")),
]

ORDINARY = [
    ("观察肺的上叶，注意是否有空洞。", "A", ("肺", "心")),
    ("这是一张肺部影像，请看左侧。", "A", ("左", "右")),
    ("是否有结节？先看边缘是不是光滑。", "A", ("是", "否")),
    ("有无积液？", "A", ("有", "无")),
    ("做B超检查时注意回声", "B", ZH),
    ("维生素B缺乏", "B", ZH),
    ("B型肝炎", "B", ZH),
    ("A型流感与C反应蛋白", "A", ZH),
    ("先看边缘，再看密度。", "B", ZH),
    ("寻找不正常的密度影", "C", ZH),
    ("上叶出现空洞时要想到哪一种感染？", "B", ZH),
    ("选择合适的窗宽", "B", ZH),
    ("比较各选项的特点。", "B", ZH),
    ("注意T2加权像", "B", ZH),
    ("选项中哪些常见于上叶？", "A", ZH),
    ("是否A型", "A", ZH),
    ("上葉の空洞に注目してください。", "B", JA),
    ("B型肝炎ウイルス", "B", JA),
    ("ビタミンBが不足", "B", JA),
    ("どの選択肢が合うか考えましょう", "A", JA),
    ("ガンマ線", "A", ("ガン", "胃炎")),
    ("상엽의 공동을 보세요.", "B", KO),
    ("간단한 소견", "A", ("간", "폐")),
    ("비타민 B 결핍", "B", KO),
    ("비정상 음영", "C", KO),
    ("B형 간염", "B", KO),
    ("예를 들어 경계를 보세요", "A", ("예", "아니요")),
    ("Observa el lóbulo superior; la respuesta está en las cavidades.", "B", ES),
    ("La respuesta inmune a la lesión", "A", ES),
    ("No hay derrame; mira el hilio", "B", ("Sí", "No")),
    ("vitamina B", "B", ES),
    ("Piensa en la respuesta a la pregunta", "A", ES),
    ("Es una lesión anormal", "C", ES),
    ("A veces es difícil", "A", ES),
    ("Die Antwort liegt im Oberlappen.", "B", DE),
    ("Vitamin B", "B", DE),
    ("A lesão é grande", "A", PT),
    ("O lobo superior é importante", "B", PT),
    ("A resposta está no lobo superior", "A", PT),
    ("não há derrame", "B", ("Sim", "Não")),
    ("pas de lésion à gauche; non", "A", FR),
    ("La réponse à la question est dans le lobe", "A", FR),
    ("une lésion anormale", "C", FR),
    ("انظر إلى الفص العلوي", "B", AR),
    ("لا يوجد انصباب", "B", ("نعم", "لا")),
    ("ب", "A", AR),
    ("التهاب", "A", AR),
    ("السلوك", "B", AR),
]


@pytest.mark.parametrize(("hint", "answer", "options"), LEAKS)
def test_a_hint_that_states_the_answer_leaks(hint: str, answer: str, options: tuple[str, ...]) -> None:
    assert audit(hint, answer, options)


@pytest.mark.parametrize(("hint", "answer", "options"), ORDINARY)
def test_an_ordinary_hint_passes(hint: str, answer: str, options: tuple[str, ...]) -> None:
    assert audit(hint, answer, options) == ()


def test_sentences_that_leak_are_cut_out_where_no_blank_follows_them() -> None:
    assert strip_leaks("注意上叶空洞。答案是B。看边缘。", "B", ZH) == "注意上叶空洞。看边缘。"


@pytest.mark.parametrize("unit", ["答案", "不是B，", "la respuesta es ", "\n", "정답은 ", "ال", "是"])
def test_a_teacher_that_went_astray_costs_no_time(unit: str) -> None:
    text = (unit * 10_000)[:10_000]
    start = time.process_time()
    strip_leaks(text, "B", ZH)
    assert time.process_time() - start < 2.0
