"""The wording of the generated retrieval sets: our own names, facts, questions and filler.

Shipped files are made of the passkey part, so a change of it changes their bytes.
"""

FILLER = (
    "The shelves along the north wall hold boxes of old maps.",
    "A clerk sorts the morning post and waters the two plants.",
    "Rain taps on the window while the kettle warms up.",
    "Someone has left a grey umbrella beside the door again.",
    "The clock above the desk runs four minutes slow.",
    "Nothing else of note happened before the lamps were lit.",
)
FIRST = """
Ada Alma Amir Anton Aria Arlo Asha Axel Beatrix Bela Bruno Carmen Cedric Clara Cyrus Dalia Dario
Delia Dmitri Edith Elias Elsa Emeka Enzo Esme Fabian Farah Felix Fiona Flora Gemma Gideon Greta
Gustav Hana Harvey Hazel Hugo Ibrahim Ida Ines Ingrid Isaac Ivan Ivy Jamal Joan Jonas Judith Kai
Karim Katya Kenji Lara Leif Leonie Linus Lucia Magnus Maeve Malik Marta Milo Mina Nadia Naomi Nils
Noor Odette Olga Omar Oscar Otto Paloma Pavel Petra Quentin Rafael Rania Renata Rhea Rosa Rufus
Sadie Samir Selma Silas Sonya Stella Tariq Tessa Theo Uma Ursula Viktor Wanda Willa Yara Yusuf Zelda
""".split()
LAST = """
Abbott Adeyemi Alvarez Amsel Archer Barlow Becker Bianchi Blum Bose Calder Castro Chandra Cole
Corbett Dalgaard Delgado Dorsey Duarte Eklund Ellery Espinoza Farrow Fischer Fontaine Fry Galloway
Gupta Hale Haas Hawthorn Hidalgo Holm Hussein Ibsen Ishii Iyer Jansen Jarvis Joshi Kaur Keller
Kimura Koch Kovacs Lang Larkin Lindqvist Lopez Lund Mahler Marsh Mendes Moreau Mukherjee Nakamura
Navarro Nolan Novak Nyberg Okafor Olsen Orlov Ortega Paley Park Pereira Quist Quigley Ramsay Rao
Reyes Ritter Rossi Salazar Sato Schmidt Shah Sorensen Stone Takeda Tanaka Thorne Tran Ueda Ulrich
Vance Varga Vogel Walsh Weber Whitlock Wong Xu Yates Yilmaz York Zeller Zhang Zimmer
""".split()
KEY = "The safe code of {name} is {code}. Keep it in mind. {code} is the safe code of {name}."
QUERY = "What is the safe code of {name}?"

# Needle: the i-th fact is told of ten towns, STEMS with the i-th ending, and of ten answers.
STEMS = "Alder Bracken Corran Dunlin Ember Fallow Gorse Hollin Ister Juniper".split()
FACTS = (  # ending of the town, fact, question, answers
    (
        "ford",
        "The bakery in {town} sells out of {answer} bread before seven.",
        "Which kind of loaf is gone first thing in the morning in {town}?",
        "rye barley oat walnut pumpkin onion raisin sesame potato chestnut",
    ),
    (
        "mouth",
        "The lighthouse keeper of {town} plays the {answer} when fog comes in.",
        "On what does the man at the beacon of {town} make music in bad weather?",
        "cello trumpet harp bassoon mandolin clarinet tuba zither oboe banjo",
    ),
    (
        "mere",
        "The town hall of {town} is roofed with {answer}.",
        "Which material keeps the rain off the council in {town}?",
        "copper slate thatch zinc turf shingles sailcloth tiles glass cork",
    ),
    (
        "holt",
        "Every child in {town} is taught {answer} at school.",
        "What do pupils learn by hand in {town}?",
        "weaving carving bookbinding pottery knitting joinery engraving baking tanning glazing",
    ),
    (
        "stead",
        "The oldest tree in {town} is a {answer} beside the well.",
        "Of what species is the most ancient trunk that grows in {town}?",
        "yew linden larch hornbeam mulberry sycamore cedar hawthorn poplar rowan",
    ),
    (
        "bridge",
        "The river at {town} turns {answer} in the first week of June.",
        "Which colour has the water at {town} when summer begins?",
        "amber turquoise crimson violet silver milky olive pink ochre indigo",
    ),
    (
        "wick",
        "The library of {town} lends out {answer} as well as books.",
        "What can you borrow in {town} apart from something to read?",
        "kites telescopes drills sledges violins tents globes stilts chess-sets canoes",
    ),
    (
        "combe",
        "Before her election the mayor of {town} worked as a {answer}.",
        "What was the earlier profession of the head of government in {town}?",
        "plumber florist diver beekeeper pilot cobbler juggler surveyor typist glazier",
    ),
    (
        "thorpe",
        "The night train stops in {town} only to load {answer}.",
        "Why does the late sleeper service call at {town}?",
        "cheese timber oysters ice hops wool cherries salt mail marble",
    ),
    (
        "fell",
        "The summer fair in {town} gives its winner a {answer}.",
        "Which prize does the best contestant take home from {town}?",
        "goose saddle barometer hammock pocketwatch quilt cartwheel hat compass samovar",
    ),
)

# Needle's filler: sentences of a small grammar. No word of it is a town or an answer.
PATTERNS = (
    "{who} {did} {what} {where}.",
    "{when} {who} {did} {what}.",
    "{where} {who} {did} {what}.",
    "{who} {did} {what} because {why}.",
    "{when} {who} {did} {what} {where}.",
)
SLOTS = {
    "who": (
        "the carpenter",
        "a retired teacher",
        "my neighbour",
        "the younger of the two sisters",
        "the bus driver",
        "a visitor from abroad",
        "the nurse on duty",
        "an apprentice",
        "the evening porter",
        "a group of students",
        "the tailor across the street",
        "our landlady",
    ),
    "did": (
        "repaired",
        "borrowed",
        "forgot about",
        "looked for",
        "paid for",
        "talked about",
        "put away",
        "admired",
        "measured",
        "photographed",
        "described",
        "gave up",
    ),
    "what": (
        "the broken gate",
        "a box of letters",
        "two wooden chairs",
        "the old bicycle",
        "a plan of the cellar",
        "the winter coats",
        "a jar of buttons",
        "the spare keys",
        "a long ladder",
        "the kitchen scales",
        "three flower pots",
        "a worn leather bag",
        "the brass lamp",
        "a stack of newspapers",
        "the garden hose",
        "an unfinished portrait",
    ),
    "where": (
        "in the back room",
        "near the station",
        "behind the theatre",
        "at the end of the corridor",
        "by the canal",
        "under the stairs",
        "in front of the post office",
        "on the upper floor",
        "next to the pharmacy",
        "outside the workshop",
    ),
    "when": (
        "on Monday",
        "shortly after lunch",
        "late in the evening",
        "at the end of the month",
        "as so often",
        "a few days later",
        "without a word",
        "on the way back",
        "during the long strike",
        "for the second time",
    ),
    "why": (
        "nobody else had time",
        "the forecast had changed",
        "there was little else to do",
        "it had been promised",
        "the lift was out of order",
        "guests were expected",
        "the shop was closed",
        "a letter had asked for it",
        "the lights had failed",
        "it seemed a good idea",
    ),
}
