// Lists the catalogue until the page is built.
const catalogue = await (await fetch("./catalogue.json")).json();
for (const artifact of catalogue.artifacts) {
  const line = document.createElement("li");
  line.textContent = artifact.folder;
  document.getElementById("artifacts").append(line);
}
