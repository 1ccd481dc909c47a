"""Topics of reports on accidents: weather, fire, railway, sea rescue."""

from training.report_words import FEW, MANY, TOWNS, Topic

MISHAPS = (
    Topic(
        name="weather",
        numbers=MANY,
        slots={
            "storm": (
                *("heavy snow", "a thunderstorm", "a gale", "freezing rain", "a hailstorm", "a tornado"),
                *("torrential rain", "a blizzard", "a dust storm", "a cloudburst"),
            )
        },
        leads=(
            "{storm} hit {place} on {day}.",
            "{place} was struck by {storm} on {day}.",
            "On {day} {storm} swept through {place}.",
            "People in {place} woke to {storm} on {day}.",
        ),
        details=(
            (
                "{number} homes lost power.",
                "Power failed in {number} homes.",
                "Engineers said {number} homes were without electricity.",
                "The lights went out in {number} homes.",
            ),
        ),
        outcomes={
            "schools were closed": ("Every school was shut.", "Children were told to stay at home."),
            "the main road was blocked": ("Nobody could use the main road.", "Debris covered the main road."),
            "flights were cancelled": ("No plane could take off.", "The airport cancelled all flights."),
            "nobody was hurt": ("There were no injuries.", "Doctors reported no casualties."),
        },
        asides=(
            "A storm in {elsewhere} cut off {another_number} homes in {month}.",
            "Forecasters expect milder air over {elsewhere} by {another_day}.",
            "Wind speeds in {elsewhere} reached {another_number} kilometres an hour.",
        ),
        summary="On {day} {storm} hit {place}, {number} homes lost power and {outcome}.",
    ),
    Topic(
        name="fire service",
        numbers=FEW,
        slots={
            "building": (
                *(
                    "a warehouse",
                    "a bakery",
                    "a hotel",
                    "a barn",
                    "a school",
                    "a factory",
                    "a block of flats",
                ),
                *("a restaurant", "a garage", "a sawmill", "a library", "a farmhouse"),
            ),
            "cause": (
                *("an electrical fault", "a cigarette", "a candle", "a gas leak", "a broken heater"),
                *("lightning", "hot oil", "a welding torch", "a firework"),
            ),
        },
        leads=(
            "A fire broke out at {building} in {place} on {day}.",
            "Firefighters were called to {building} in {place} on {day}.",
            "{building} in {place} caught fire on {day}.",
            "On {day} flames tore through {building} in {place}.",
        ),
        details=(
            (
                "Investigators blamed {cause}.",
                "The blaze was started by {cause}.",
                "{cause} is thought to be the cause.",
                "The chief fire officer said {cause} had caused it.",
            ),
            (
                "{number} crews fought the flames.",
                "It took {number} crews to put the blaze out.",
                "In the end {number} crews were needed.",
            ),
        ),
        outcomes={
            "nobody was hurt": ("There were no injuries.", "Everyone got out safely."),
            "two people were hurt": (
                "Two people were taken to hospital.",
                "A couple were treated for burns.",
            ),
            "the roof collapsed": ("The roof fell in.", "Nothing is left of the roof."),
        },
        asides=(
            "A fire in {elsewhere} in {month} needed {another_number} crews.",
            "The fire station in {elsewhere} has {another_number} engines.",
            "Smoke could be seen from {elsewhere}.",
        ),
        summary=(
            "A fire at {building} in {place} on {day} was caused by {cause}, {number} crews "
            "came and {outcome}."
        ),
    ),
    Topic(
        name="railway",
        numbers=MANY,
        slots={
            "trouble": (
                *("a signal failure", "a fallen tree", "a broken rail", "a landslide", "a lorry on the line"),
                *("a staff shortage", "flooding", "a damaged bridge", "a herd of cows"),
            ),
            "terminus": TOWNS,
        },
        leads=(
            "Travellers between {place} and {terminus} had a hard {day}.",
            "There was trouble on the line from {place} to {terminus} on {day}.",
            "On {day} the railway from {place} to {terminus} came to a halt.",
            "Rail passengers going from {place} to {terminus} were stuck on {day}.",
        ),
        details=(
            (
                "The operator blamed {trouble}.",
                "The reason was {trouble}.",
                "{trouble} was to blame.",
                "It was all due to {trouble}.",
            ),
            (
                "{number} passengers were affected.",
                "The operator counted {number} passengers who were affected.",
                "Some {number} passengers had to wait.",
            ),
        ),
        outcomes={
            "cancelled": ("No train ran all day.", "All services were called off."),
            "delayed": ("Trains ran hours late.", "Services ran behind time."),
            "replaced by buses": ("Coaches were sent instead.", "Buses took over for the day."),
        },
        asides=(
            "The line to {elsewhere} carries {another_number} passengers an hour.",
            "New carriages will run to {elsewhere} from {month}.",
            "A ticket to {elsewhere} costs {another_number} crowns.",
        ),
        summary=(
            "Trains from {place} to {terminus} were {outcome} on {day} because of {trouble}, "
            "affecting {number} passengers."
        ),
    ),
    Topic(
        name="sea rescue",
        numbers=FEW,
        slots={
            "vessel": (
                *("a trawler", "a yacht", "a ferry", "a cargo ship", "a rowing boat", "a tanker", "a tug"),
                *("a sailing school boat", "a catamaran", "a survey ship"),
            ),
            "mishap": (
                *(
                    "its engine failed",
                    "it hit a rock",
                    "it lost its rudder",
                    "it began to leak",
                    "its mast broke",
                ),
                *("it ran aground", "its cargo shifted", "it ran out of fuel"),
            ),
        },
        leads=(
            "The coastguard went to the aid of {vessel} off {place} on {day}.",
            "{vessel} sent a distress call off {place} on {day}.",
            "On {day} {vessel} got into difficulty off {place}.",
            "A lifeboat was sent to {vessel} off {place} on {day}.",
        ),
        details=(
            (
                "Its captain said {mishap}.",
                "It needed help because {mishap}.",
                "The trouble began when {mishap}.",
            ),
            (
                "{number} people were saved.",
                "All {number} people aboard were saved.",
                "The rescuers brought {number} people ashore.",
            ),
        ),
        outcomes={
            "it sank": ("The vessel went down.", "Soon it lay on the sea bed."),
            "it was towed in": ("A tow brought it to the harbour.", "It was pulled back to port."),
            "one was injured": ("One needed a doctor.", "One broke an arm."),
        },
        asides=(
            "The lifeboat at {elsewhere} was called out {another_number} times since {month}.",
            "Waves off {elsewhere} were calm on {another_day}.",
            "{witness} has run the harbour at {elsewhere} since {month}.",
        ),
        summary=(
            "Rescuers saved {number} people from {vessel} off {place} on {day} after {mishap}, and {outcome}."
        ),
    ),
)
