r"""The words around an answer in other languages than English: the data of `kepo.rewards.languages`.

Every entry is a regular expression without groups, of text in which tashkeel is taken out and the forms of alef, teh
and yeh are one. In languages with blanks it stands for whole words; `_` is any blank there. What the roles stand for:

- answer: the word for an answer or an option, also with the copula ("the answer is");
- option: the word for an option right behind its letter;
- choose: a verb that takes the option;
- is: a copula in front of an answer;
- correct: what may end a statement behind the option ("B is correct");
- end: what ends a sentence behind the option and says nothing ("B desu");
- deny: a negation right in front of what it denies, articles included;
- negation: a word that turns a following copula or verb into a denial;
- because: what a reason begins with;
- or: what joins two options, where no blanks set it apart;
- but: what follows a denial ("not A but B");
- yes_no: everyday words that are also answers.

An answer in a form that is not here names no option: what is not read is never credited.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CUES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Chinese": {
            "answer": (
                r"(?:(?:正确|正確|最终|最終|最佳|标准|標準|本题|本題|参考|所以|因此|故)的?)*(?:答案|正解|解答|选项|選項|選択肢)"
                r"(?:应该|應該|应当|应|應|就|即|便|可能|也许)?(?:是|为|為|选|選)?(?:选项|選項)?",
            ),
            "option": (r"选项|選項|项|項",),
            "choose": (
                r"(?:应该|應該|应当|应|應|故|请|請|首|就|只|能|可|要|该|必)*(?:选择|選擇|选|選)(?:选项|選項|项|項|的是)?",
            ),
            "is": (
                r"(?:这|這|那|它|此|图中|圖中|图示|病变|病變|诊断|診斷|结果|結果|所示)?(?:应该|應該|应当|应|應|更像|可能|就|也|都|而)*"
                r"(?:是|属于|屬於|考虑为|诊断为|診斷為|判断为)",
                r"(?:诊断|診斷|结果|結果|应|應)(?:为|為)|考虑|提示|即为|符合|支持|指向|倾向于?|更?像",
            ),
            "correct": (
                r"(?:选项|選項|项|項)?(?:才是|就是|是|为|為|最|更)?(?:正确|正確|对|對|合适|符合)(?:的)?(?:答案|选项|選項|解|题意)?",
            ),
            "end": (r"[吗呢吧了啊的]|选项|項|项",),
            "deny": (
                r"并不是|並不是|并非|並非|而不是|而非|不是|不选|不選|非|无|無|没有|沒有|未见|未見|排除|不考虑|不支持|不符合|不像",
            ),
            "negation": (r"[不没沒未别別勿無无]|非(?!常)",),
            "because": (r"因为|因為|由于|由於|理由",),
            "or": (r"还是|還是|或者|或|以及|及|和|与|與|就是",),
            "but": (r"而是",),
            "yes_no": ("是", "否", "对", "對", "错", "錯", "有", "无", "無", "正确", "错误"),
        },
        "Japanese": {
            "answer": (
                r"(?:正しい|最も適切な|最終|私の)?(?:正解|正答|答え|回答|解答|選択肢)(?:の選択肢)?(?:として)?(?:は|が)?(?:選択肢)?",
            ),
            "option": (r"の?選択肢|番",),
            "choose": (r"(?:選ぶべき(?:もの|選択肢)?|選択すべき(?:もの)?)は",),
            "is": (r"(?:これ|それ|診断名?|画像|所見|病変|疾患|写真|図|この画像|結論)は",),
            "correct": (
                r"の?(?:選択肢)?(?:が|は)(?:最も)?(?:正解|正答|正しい|適切|答え|妥当|適当)(?:です|である|だ)?",
                r"を(?:選びます|選ぶ|選択します|選択する|選んでください|選択|選ぼう|選べばよい)",
            ),
            "end": (
                r"(?:です|でしょう|だと(?:思います|思う|考えます)|である|だ|になります|となります|と考えられます|と思われます)(?:ね|よ)?",
            ),
            "deny": (),
            "negation": (),
            "because": (r"なぜなら|なので|ので|ため|だから|ですから",),
            "or": (r"または|もしくは|あるいは|か|と|や|及び",),
            "but": (),
            "yes_no": ("はい", "いいえ", "あり", "なし", "有", "無"),
        },
        "Korean": {
            "answer": (
                r"(?<![가-힣])(?:(?:정확한|올바른|옳은|최종|맞는)\s*)?(?:정답|답안|해답|답)(?:은|이|는)?(?![가-힣])"
                r"(?:\s*(?:선택지|보기))?",
                r"(?<![가-힣])(?:선택지|보기|옵션)(?=\s*[A-Z])",
            ),
            "option": (r"\s*(?:선택지|보기|옵션)|번",),
            "choose": (),
            "is": (r"(?<![가-힣])(?:이것|이는|진단|진단명|소견|병변|영상|사진|이 영상|이 사진|결론)(?:은|는)",),
            "correct": (
                r"(?:번|이|가|은|는)*\s*(?:정답|올바른 답|맞는 답|답)(?:입니다|이다|임)?",
                r"(?:번|이|가|은|는)*\s*(?:맞습니다|옳습니다|맞다|옳다)",
                r"번?(?:을|를)?\s*(?:선택합니다|고릅니다|선택|고르세요|선택하세요|고르십시오)",
            ),
            "end": (
                r"번?(?:입니다|이다|이에요|예요|임|다|이?라고 (?:생각합니다|봅니다)|으?로 (?:생각됩니다|보입니다))",
            ),
            "deny": (),
            "negation": (),
            "because": (r"왜냐하면|때문",),
            "or": (r"또는|혹은|아니면|이나|나|와|과",),
            "but": (),
            "yes_no": ("예", "네", "아니요", "아니오", "있음", "없음"),
        },
        "Spanish": {
            "answer": (
                r"(?:la_)?(?:respuesta|soluci[oó]n|opci[oó]n|alternativa|letra|inciso)"
                r"(?:_(?:m[aá]s|correct[ao]|final|adecuada|probable|ser[ií]a|debe_ser|es))*",
            ),
            "option": (),
            "choose": (
                r"elij[oea]|elige|escoj[oea]|escoge|selecciono|seleccione|selecciona|marque|marca|elegir|escoger|seleccionar|marcar",
            ),
            "is": (r"es|ser[ií]a|se_trata_de(?:_una?)?|diagn[oó]stico:?",),
            "correct": (
                r"(?:es|ser[ií]a)_(?:la_)?(?:(?:respuesta|opci[oó]n|alternativa)_)?(?:correct[ao]|adecuad[ao]|respuesta)",
            ),
            "end": (),
            "deny": (
                r"(?:no_es|no_son|no_hay|no_ser[ií]a|no|ni|sin|nunca_es|excepto|descarta|descartar|en_lugar_de|en_vez_de"
                r"|ausencia_de)(?:_(?:un|una|el|la|los|las))?",
            ),
            "negation": (r"no|nunca|jam[aá]s|tampoco|ni",),
            "because": (r"porque|ya_que|pues|dado_que|debido",),
            "or": (),
            "but": (r"sino(?:_que)?",),
            "yes_no": ("sí", "no", "verdadero", "falso"),
        },
        "German": {
            "answer": (
                r"(?:die_)?(?:richtige_|korrekte_)?(?:antwort|antwortm[oö]glichkeit|l[oö]sung|buchstabe|m[oö]glichkeit)"
                r"(?:_(?:lautet|ist|w[aä]re))*",
                r"richtig_ist|korrekt_ist",
            ),
            "option": (),
            "choose": (r"w[aä]hlen_sie|w[aä]hle|nehme|nimm|ich_w[aä]hle|entscheide_mich_f[uü]r",),
            "is": (r"ist|sind|w[aä]re|es_handelt_sich_um|diagnose:?|lautet",),
            "correct": (
                r"(?:ist|w[aä]re)_(?:die_)?(?:richtige_antwort|korrekte_antwort|richtige|korrekte|richtig|korrekt|l[oö]sung)",
            ),
            "end": (),
            "deny": (
                r"(?:ist_nicht|nicht|kein|keine|keinen|keiner|ohne|statt|anstatt|anstelle_von|weder|noch|au[sß]er"
                r"|ausschluss_von)(?:_(?:ein|eine|einen|einer|der|die|das))?",
            ),
            "negation": (r"nie|niemals|nicht|weder",),
            "because": (r"weil|denn|da",),
            "or": (),
            "but": (r"sondern",),
            "yes_no": ("ja", "nein", "wahr", "falsch", "richtig"),
        },
        "French": {
            "answer": (
                r"(?:la_)?(?:bonne_)?(?:r[eé]ponse|choix|lettre)"
                r"(?:_(?:correcte|finale|exacte|juste|serait|est))*",
            ),
            "option": (),
            "choose": (r"choisis|choisissez|je_choisis|choisir|s[eé]lectionne|s[eé]lectionnez|coche|cochez",),
            "is": (r"est|sont|serait|c['’]est|il_s['’]agit_(?:d['’]une?|de_la|de_l['’]|de)",),
            "correct": (
                r"est_(?:la_)?(?:bonne_r[eé]ponse|r[eé]ponse_correcte|bonne|correcte?|exacte?|juste|r[eé]ponse)",
            ),
            "end": (),
            "deny": (
                r"(?:(?:ce_)?n['’]est_pas|ne_sont_pas|pas|ni|sans|sauf|au_lieu|plut[oô]t_que|absence|exclut)"
                r"(?:_(?:une?|la|le|les|de|d['’]))*",
            ),
            "negation": (r"ne|jamais",),
            "because": (r"parce_que|car|puisque",),
            "or": (),
            "but": (r"mais",),
            "yes_no": ("oui", "non", "vrai", "faux"),
        },
        "Portuguese": {
            "answer": (
                r"(?:a_)?(?:resposta|solu[cç][aã]o|op[cç][aã]o|alternativa|letra)"
                r"(?:_(?:mais|correta|certa|final|adequada|prov[aá]vel|seria|deve_ser|[eé]))*",
            ),
            "option": (),
            "choose": (r"escolho|escolha|selecione|seleciono|assinale|escolher|selecionar|assinalar|marque",),
            "is": (r"é|são|seria|trata-se_de(?:_uma?)?|diagn[oó]stico:?",),
            "correct": (
                r"(?:é|est[aá]|seria)_(?:a_)?(?:(?:resposta|op[cç][aã]o|alternativa)_)?(?:corret[ao]|cert[ao]|resposta)",
            ),
            "end": (),
            "deny": (
                r"(?:n[aã]o_é|n[aã]o_s[aã]o|n[aã]o_h[aá]|n[aã]o|nem|sem|exceto|descarta|em_vez_de|ao_inv[eé]s_de|aus[eê]ncia_de)"
                r"(?:_(?:um|uma|o|a|os|as))?",
            ),
            "negation": (r"n[aã]o|nunca|jamais|nem|tampouco",),
            "because": (r"porque|pois|j[aá]_que|uma_vez_que",),
            "or": (),
            "but": (r"mas|sen[aã]o",),
            "yes_no": ("sim", "não", "verdadeiro", "falso"),
        },
        "Arabic": {
            "answer": (
                r"[وف]?(?:ال)?(?:اجابه|جواب|حل|خيار|اختيار|حرف)(?:_(?:ال)?(?:صحيحه|صحيح|نهائيه|نهائي))?(?:_(?:هي|هو))?"
                r"(?:_(?:ال)?(?:خيار|اجابه|حرف))?",
            ),
            "option": (),
            "choose": (r"[وف]?(?:اختر|اختار|نختار|اخترت)(?:_الخيار)?",),
            "is": (r"[وف]?(?:هي|هو|هذا|هذه|انه|انها|التشخيص|التشخيص_هو)",),
            "correct": (r"(?:هي|هو)_(?:(?:ال)?(?:اجابه|خيار|جواب)_)?(?:ال)?(?:صحيحه|صحيح)|صحيحه|صحيح",),
            "end": (),
            "deny": (r"[وف]?(?:ليست|ليس|لا|غير|بدون|دون|ما_عدا|باستثناء|بدلا_من|لا_يوجد|لا_توجد)(?:_هناك)?",),
            "negation": (r"ليست|ليس|لا|لم|لن|غير",),
            "because": (r"لان|لانها|لانه|بسبب",),
            "or": (),
            "but": (r"بل",),
            "yes_no": ("نعم", "لا", "صحيح", "خطا", "صح"),
        },
    }
)

SPACED = ("Spanish", "German", "French", "Portuguese", "Arabic")
"""The languages above whose words stand between blanks."""

LETTERS: Mapping[str, str] = MappingProxyType(dict(zip("ابجدهوزحطي", "ABCDEFGHIJ", strict=True)))
"""Arabic letters that stand for those of options, in the order in which lists are lettered."""

OPTION_NOUNS = "选项|選項|選択肢|보기|선택지|옵션"
"""Words for an option that stand right in front of its letter, where words are not set apart by blanks."""

OPTION_MARK = "\x01"
"""Stands behind the letter of an option that was called one."""

ENGLISH = MappingProxyType(
    {
        "deny": " not ",
        "answer": " answer is ",
        "option": OPTION_MARK,
        "choose": " choose ",
        "is": " is ",
        "correct": " is correct ",
        "end": " ",
        "because": " because ",
        "or": " or ",
        "but": " but ",
    }
)
"""What a role becomes in English."""

ORDINALS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("", ("第一", "第二", "第三", "第四", "第五"), "个?(?:选项|選項|選択肢|答案|项)"),
    ("", ("1番目", "2番目", "3番目", "4番目", "5番目"), "の(?:選択肢|答え)"),
    ("", (r"첫\s*번째", r"두\s*번째", r"세\s*번째", r"네\s*번째", r"다섯\s*번째"), r"\s*(?:선택지|보기|옵션|답)"),
    (r"\b", ("primera", "segunda", "tercera", "cuarta", "quinta"), r"\s+(?:opci[oó]n|alternativa|respuesta)"),
    (r"\b", ("erste", "zweite", "dritte", "vierte", "fünfte"), r"n?\s+(?:option|antwort|möglichkeit)"),
    (r"\b", ("première", "deuxième", "troisième", "quatrième", "cinquième"), r"\s+(?:option|réponse|proposition)"),
    (r"\b", ("primeira", "segunda", "terceira", "quarta", "quinta"), r"\s+(?:op[cç][aã]o|alternativa|resposta)"),
    (r"الخيار\s+", ("الاول", "الثاني", "الثالث", "الرابع", "الخامس"), ""),
)
"""For each language what stands in front of an ordinal, the first five of them, and what follows ("second option")."""

UNREAD_SCRIPTS = frozenset(
    [
        "CYRILLIC",
        "HEBREW",
        "DEVANAGARI",
        "BENGALI",
        "GURMUKHI",
        "GUJARATI",
        "TAMIL",
        "TELUGU",
        "KANNADA",
        "MALAYALAM",
        "SINHALA",
        "THAI",
        "LAO",
        "MYANMAR",
        "KHMER",
        "TIBETAN",
        "GEORGIAN",
        "ARMENIAN",
        "ETHIOPIC",
        "GREEK",
    ]
)
"""Scripts, by the first word of their characters' Unicode names, whose languages have no cue words here."""
