"""Topics of reports on public affairs: sport, trade, science, council."""

from training.report_words import FEW, MANY, TOWNS, Topic

AFFAIRS = (
    Topic(
        name="sport",
        numbers=MANY,
        slots={
            "loser": TOWNS,
            "score": (
                "1-0",
                "2-0",
                "2-1",
                "3-0",
                "3-1",
                "3-2",
                "4-0",
                "4-1",
                "4-2",
                "4-3",
                "5-1",
                "5-2",
                "5-3",
            ),
        },
        leads=(
            "{place} beat {loser} {score} on {day}.",
            "{loser} lost {score} to {place} on {day}.",
            "On {day} {place} won {score} against {loser}.",
            "The side from {loser} was beaten {score} by {place} on {day}.",
        ),
        details=(
            (
                "{first} {last} was named player of the match.",
                "The best player on the pitch was {first} {last}.",
                "The fans chose {first} {last} as player of the match.",
            ),
            (
                "{number} fans watched the match.",
                "The crowd numbered {number} fans.",
                "There were {number} fans in the ground.",
            ),
        ),
        outcomes={
            "top the league": ("They are now first in the league.", "Nobody stands above the winners now."),
            "reach the final": ("The winners are through to the final.", "They will play in the final."),
            "avoid the drop": ("The winners will not go down.", "They stay up for another season."),
        },
        asides=(
            "{elsewhere} drew 2-2 with a visiting side on {another_day}.",
            "{elsewhere} have sold {another_number} season tickets.",
            "Injured striker {witness} has joined {elsewhere}.",
        ),
        summary=(
            "On {day} {place} beat {loser} {score} before {number} fans to {outcome}, led by {first} {last}."
        ),
    ),
    Topic(
        name="trade",
        numbers=MANY,
        slots={
            "company": (
                *(
                    "Alvanta",
                    "Brixon",
                    "Cordell",
                    "Delmont",
                    "Everline",
                    "Fenwick",
                    "Galtrex",
                    "Hallmont",
                    "Isarco",
                    "Juno",
                ),
                *(
                    "Kestrel",
                    "Lumen",
                    "Mirova",
                    "Norvale",
                    "Orbex",
                    "Palmer",
                    "Quantis",
                    "Rivera",
                    "Solvane",
                    "Trident",
                ),
            ),
            "plant": (
                *(
                    "a battery plant",
                    "a paper mill",
                    "a data centre",
                    "a shipyard",
                    "a brewery",
                    "a steel works",
                ),
                *("a chip factory", "a depot", "a glass factory", "a wind farm", "a dairy"),
            ),
        },
        leads=(
            "{company} is to build {plant} in {place}.",
            "{plant} will be built in {place} by {company}.",
            "The firm {company} said it would open {plant} in {place}.",
            "The town of {place} has been chosen by {company} as the site of {plant}.",
        ),
        details=(
            (
                "It will create {number} jobs.",
                "{number} jobs will come with it.",
                "The firm is looking for {number} workers to fill new jobs.",
            ),
            (
                "Work starts in {start}.",
                "The first stone will be laid in {start}.",
                "Builders are to begin in {start}.",
            ),
        ),
        outcomes={
            "its shares rose": ("Investors were pleased and the shares went up.", "The share price climbed."),
            "its shares fell": ("Investors sold and the shares went down.", "The share price dropped."),
            "unions welcomed it": ("The unions were delighted.", "Union leaders praised the plan."),
        },
        asides=(
            "A rival closed its office in {elsewhere} in {month} with {another_number} staff.",
            "Its director {witness} grew up in {elsewhere}.",
            "Wages in {elsewhere} have risen since {month}.",
        ),
        summary=(
            "The firm {company} will build {plant} in {place} from {start}, creating "
            "{number} jobs, and {outcome}."
        ),
    ),
    Topic(
        name="science",
        numbers=FEW,
        slots={
            "find": (
                *("a rare orchid", "a blind fish", "a giant beetle", "a Roman coin", "a dinosaur bone"),
                *(
                    "a hidden cave",
                    "a blue frog",
                    "a bronze sword",
                    "a meteorite",
                    "a hot spring",
                    "a stone tomb",
                ),
            ),
        },
        leads=(
            "A team led by {first} {last} has discovered {find} near {place}.",
            "{find} was discovered near {place} by a team under {first} {last}.",
            "Near {place} the scientist {first} {last} and a team found {find}.",
            "The scientist {first} {last} reported the discovery of {find} near {place}.",
        ),
        details=(
            (
                "The search took {number} weeks.",
                "They had searched for {number} weeks.",
                "It came after {number} weeks of searching.",
            ),
        ),
        outcomes={
            "it will go to a museum": (
                "A museum will put it on show.",
                "Visitors can soon see it in a museum.",
            ),
            "the site was closed": ("The public may not go near it.", "A fence now keeps visitors out."),
            "experts doubt it": ("Other scholars are not convinced.", "Some experts called it a mistake."),
        },
        asides=(
            "A laboratory in {elsewhere} owns {another_number} microscopes.",
            "Students from {elsewhere} helped until {month}.",
            "A talk by {witness} takes place on {another_day}.",
        ),
        summary="The scientist {first} {last} found {find} near {place} after {number} weeks and {outcome}.",
    ),
    Topic(
        name="council",
        numbers=MANY,
        slots={
            "plan": (
                *("close the library", "build a skate park", "widen the bridge", "ban cars from the centre"),
                *("open a night shelter", "plant a forest", "sell the town hall", "restore the theatre"),
                *(
                    "heat the swimming pool",
                    "repair the pier",
                    "light the cycle path",
                    "move the bus station",
                ),
            ),
        },
        leads=(
            "Councillors in {place} voted on a plan to {plan} on {day}.",
            "A plan to {plan} came before the council in {place} on {day}.",
            "On {day} the council in {place} debated whether to {plan}.",
            "The council in {place} met on {day} about a proposal to {plan}.",
        ),
        details=(
            (
                "The cost is put at {number} thousand crowns.",
                "It would cost {number} thousand crowns.",
                "The bill comes to {number} thousand crowns.",
            ),
        ),
        outcomes={
            "approved": ("A majority said yes.", "The vote was in favour.", "It was passed."),
            "rejected": ("A majority said no.", "The vote was against.", "It was thrown out."),
            "put off": ("The decision was postponed.", "No vote will be taken before next year."),
        },
        asides=(
            "A petition in {elsewhere} gathered {another_number} names.",
            "Councillor {witness} missed the debate.",
            "A similar scheme in {elsewhere} cost {another_number} thousand crowns in {month}.",
        ),
        summary="The council in {place} {outcome} a plan to {plan} for {number} thousand crowns on {day}.",
    ),
)
