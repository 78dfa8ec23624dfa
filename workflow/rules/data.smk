# Data: drawn scenes, or the user's own, as one table of records and one of text.


use rule stage as draw_world with:
    pathvars:
        stage="draw_world",
    message:
        "drawing scenes {wildcards.node}"


use rule stage as records with:
    input:
        world=role("world"),
        fetched=role("fetched"),
        files=role("files"),
    pathvars:
        stage="records",
    message:
        "reading the data {wildcards.node}"


use rule stage as text with:
    input:
        world=role("world"),
        records=role("records"),
        files=role("files"),
    pathvars:
        stage="text",
    message:
        "reading the language corpus {wildcards.node}"
