# Data: drawn or composed scenes, or the user's own, as one table of records and one of text.


use rule stage as draw_world with:
    pathvars:
        stage="draw_world",
    message:
        "drawing scenes {wildcards.node}"


use rule stage as compose_scenes with:
    input:
        roles("packages", "files"),
    pathvars:
        stage="compose_scenes",
    message:
        "composing scenes {wildcards.node}"


use rule stage as records with:
    input:
        roles("world", "fetched", "files"),
    pathvars:
        stage="records",
    message:
        "reading the data {wildcards.node}"


use rule stage as expressions with:
    input:
        roles("records", "fetched", "files"),
    pathvars:
        stage="expressions",
    message:
        "reading referring expressions of {wildcards.node}"


use rule stage as text with:
    input:
        roles("world", "records", "packages", "files"),
    pathvars:
        stage="text",
    message:
        "reading the language corpus {wildcards.node}"
