"""Plain English, written for this course, on which a model's perplexity is measured: what it loses
here it has forgotten, since no task of the course looks like this.
"""

from __future__ import annotations

TEXTS: tuple[str, ...] = (
    "Rain had fallen all night, and by morning the river stood high against the old stone bridge. "
    "Children on their way to school stopped to watch the brown water carry branches and leaves "
    "under the arches. The baker put sandbags in front of his door, as his father had done before "
    "him, and went back to his bread.",
    "A compass needle points north because the Earth itself behaves like a large magnet. Deep "
    "inside the planet, liquid iron moves slowly, and this motion produces a magnetic field. The "
    "field is weak, but a small needle that can turn freely is enough to show its direction.",
    "My grandmother kept her recipes in a tin box, written on cards in blue ink. Some of them had "
    "no amounts at all, only the names of the things that went in. When I asked her how much "
    "flour she used, she said that I should stop when the dough felt right.",
    "The market opens at seven, but those who sell fish are there long before. They stack boxes "
    "of ice, unload the vans and talk about the weather at sea. By noon the best of it is gone, "
    "and the seagulls take what is left on the stones.",
    "Sleep is not one long rest of the same kind. During the night the brain passes through "
    "several stages, from light sleep to deep sleep and back again. Most dreams that people "
    "remember come from a stage in which the eyes move quickly behind closed lids.",
    "When the railway came to the valley, people said that it would ruin the farms. It did not. "
    "Within ten years the farmers were sending milk and apples to the city every morning, and "
    "their children went to schools that had been too far away before.",
    "A good map leaves things out. If it showed every tree and every stone, nobody could read it. "
    "The person who draws it decides what matters to a traveller, and so each map is also a "
    "judgement about what can be ignored.",
    "Bread rises because of yeast, a living thing too small to see. It feeds on the sugar in the "
    "flour and gives off gas, which is caught in the dough as bubbles. In the hot oven the yeast "
    "dies, the bubbles grow once more, and the crust sets around them.",
    "The teacher asked us to write down what we would do if we had one day without any rules. "
    "Most of the class wrote about sweets and late nights. One boy wrote that he would ask his "
    "neighbour why she never left her house, because it was a rule not to ask.",
    "Ships once carried pigeons, so that a message could reach the shore faster than the ship. "
    "The birds found their way home over hundreds of miles of open water. How they do it is still "
    "not fully understood, though the sun, smells and the magnetic field all seem to help.",
    "In winter the lake freezes from the top, which is lucky for the fish. Ice is lighter than "
    "water and floats, so it forms a lid that keeps the cold out. Below it the water stays a few "
    "degrees above freezing, and life goes on slowly until spring.",
    "She had worked in the same office for thirty years, and on her last day nobody made a "
    "speech, because she had asked them not to. She cleared her desk, watered the plant by the "
    "window and left a note for the person who would come after her.",
    "Glass is made from sand, which seems strange when you hold both in your hands. Heated until "
    "it melts and then cooled quickly, the sand has no time to form crystals again. What remains "
    "is a solid whose parts lie as disordered as in a liquid.",
    "The museum is small, three rooms above a shop. It shows tools that were used to repair "
    "clocks, hundreds of them, each for one movement of the hand. The man who collected them sits "
    "by the door and is glad when somebody asks a question.",
    "Trees do not grow taller from the ground up. A nail driven into a trunk stays at the same "
    "height for as long as the tree lives. Growth happens at the tips of the branches and in a "
    "thin layer under the bark, which adds a ring every year.",
    "The bus was late again, so we walked along the canal. A heron stood in the shallow water "
    "without moving, as if somebody had put it there. We were almost past when it took one step, "
    "struck, and swallowed something that shone for a moment in the sun.",
    "Before there were clocks in every pocket, towns kept their own time. Noon was when the sun "
    "stood highest, and that moment came earlier in the east than in the west. It was the "
    "railways, with their timetables, that made whole countries agree.",
    "A violin has no marks to show where the fingers go. Beginners put strips of tape on the neck "
    "and take them off after a year or two. By then the hand has learnt distances that the eye "
    "never measured, and the ear corrects what is left.",
    "The village has two bakeries and they do not speak to each other. Nobody remembers how it "
    "began. People buy their rolls at one and their cakes at the other, and are careful to carry "
    "the bags so that the name cannot be read.",
    "Salt was once so valuable that roads were named after it and soldiers paid with it. It "
    "kept meat and fish from spoiling in the months when nothing grew. Today we have "
    "refrigerators, "
    "and we are told to eat less of what kings once locked away.",
    "At the edge of the field stood a scarecrow in an old army coat. The crows were not afraid "
    "it. One of them used to sit on its hat in the evening, looking over the rows of cabbages "
    "like the owner of the farm.",
    "Sound needs something to travel through. In air it covers about a kilometre in three "
    "seconds, in water it is more than four times as fast, and in empty space it does not travel "
    "at all. That is why thunder comes after the lightning that caused it.",
    "He learnt to swim at the age of sixty, in the public pool, among children who were better at "
    "it. For the first month he only stood in the water and breathed. In the second he let go of "
    "the edge, and the whole class cheered.",
    "The letter had been posted in 1962 and arrived last Tuesday. It had fallen behind a wooden "
    "panel in the sorting office, where workers found it during repairs. The woman it was meant "
    "for had moved twice, but her daughter still lived in the street.",
    "A desert is not defined by heat but by how little rain it gets. Parts of Antarctica are among "
    "the driest places on Earth, although they are covered with ice. What falls there as snow in a "
    "year would not fill a glass.",
    "We painted the kitchen yellow because it faces north. For a week the house smelled of paint, "
    "and we ate in the garden under a blanket. Now, even on a grey day, it looks as if the sun had "
    "just gone behind a cloud and would be back soon.",
    "The first rule of the choir was that everybody could join. The second was that nobody was "
    "allowed to say they could not sing. After some months the windows were left open during "
    "rehearsals, and people began to stop in the street.",
    "Paper was invented in China about two thousand years ago, made from bark, rags and old "
    "nets. The way to make it spread slowly along the trade routes to the west. When it reached "
    "Europe, it was cheaper than animal skin, and books began to change.",
    "There is a bench on the hill with a name carved into the back. The council wanted to replace "
    "it, but so many people wrote to the newspaper that it was repaired instead. None of them had "
    "known the person whose name it bears.",
    "Honey bees tell each other where flowers are by dancing. The angle of the dance shows the "
    "direction with respect to the sun, and its length shows the distance. Other bees follow the "
    "dancer in the dark of the hive and then fly out to the place.",
    "The old cinema had one screen and a man who played the piano on Sundays. When it closed, the "
    "seats were sold for a few coins each. Ours stands in the hall, and visitors sit down on it to "
    "tie their shoes without knowing what it is.",
    "A bicycle stays upright more easily when it moves. Part of the reason is that the rider "
    "steers "
    "a little into every fall, usually without noticing. Take the hands off the bars and many "
    "bicycles will even do the steering by themselves for a while.",
    "In the north the summer nights are so bright that people hang thick curtains to sleep. In "
    "winter the sun shows itself for an hour or two, low over the sea. Those who move there say "
    "that you get used to the darkness, but never to the light.",
    "The carpenter measured everything twice and said little. When the table was finished, he "
    "turned it over and signed it underneath with a pencil. If you look for it you will find the "
    "date as well, and a short remark about the weather.",
    "Volcanoes destroy, but the soil around them is among the richest in the world. Ash breaks "
    "down into minerals that plants need. For that reason people have always come back to farm the "
    "slopes, even when they remembered the last eruption.",
    "On the first day of the holidays the three of us built a raft from barrels and rope. It "
    "floated, which surprised everyone, and then it would not turn, which surprised no one. We "
    "drifted past the harbour wall waving as if that had been the plan.",
    "Library books used to have a slip of paper inside the cover with a stamp for every loan. You "
    "could see how often a book had been read, and how many years it had waited. I once found one "
    "that had last been taken out on the day that I was born.",
    "Vinegar is what becomes of wine when air and the right bacteria reach it. The name itself "
    "comes from two French words that mean sour wine. It cleans windows, keeps cucumbers for years "
    "and makes a plain salad taste of something.",
    "The orchestra was waiting, but the conductor had lost his glasses. After some searching a "
    "cellist lent him hers. He said later that he had never seen so many notes at once, and that "
    "the slow movement had been much faster than he intended.",
    "Cats have lived near people since grain was first stored, because grain brings mice. Nobody "
    "caught and tamed them as was done with other animals. It seems that they moved in, found the "
    "arrangement useful, and stayed on their own terms.",
    "The lighthouse has not needed a keeper since it was connected to the mainland by cable. His "
    "room is still there, round like the tower, with a bed that was built to follow the wall. From "
    "the window you can see two countries on a clear day.",
    "A joke that has to be explained is like a frog that has been taken apart: you learn how it "
    "works, and it no longer jumps. Yet people who study humour do exactly that. They say that "
    "surprise is part of it, and safety is the other part.",
    "It takes eight minutes for light to travel from the sun to the Earth. When you look at the "
    "stars the delay is far longer, often hundreds of years. The night sky is not a picture of how "
    "things are but a collection of very old messages.",
    "The shoemaker's window shows a single shoe, which has been there for as long as anyone can "
    "remember. Customers ask about the other one. He says that the day somebody comes in wearing "
    "it, he will close the shop and retire.",
    "Coffee reached Europe in the seventeenth century, and with it came a new kind of place to "
    "meet. In coffee houses people read newspapers aloud, made contracts and argued about science. "
    "Some rulers tried to close them, since talk was harder to control than wine.",
    "Every spring the storks return to the same nest on the chimney of the school. The pupils keep "
    "a list of the dates. In the last twenty years the birds have come earlier and earlier, and "
    "the list has become part of a lesson in statistics.",
    "The bridge was designed to be crossed by carts and now carries buses. Engineers fixed small "
    "devices to it that listen for cracks. At night, when the traffic stops, the steel becomes "
    "cool and shorter, and the instruments write down every creak.",
    "She wrote her first novel on the train, forty minutes in the morning and forty minutes in the "
    "evening. When the company let people work from home she rented a seat in a café opposite the "
    "station, because the words would not come without the noise.",
)


def text_rows() -> list[dict]:
    """The texts as the rows of `base_text`."""
    return [{"text": text} for text in TEXTS]
