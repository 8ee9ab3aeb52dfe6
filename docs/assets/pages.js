// Typeset what tools/typeset.py has marked; without scripts the text stays as it was written.
document.querySelectorAll("[data-tex]").forEach(function (element) {
  var shown = element.classList.contains("display");
  var tex = shown ? "\\begin{gathered}" + element.dataset.tex + "\\end{gathered}" : element.dataset.tex;
  katex.render(tex, element, { displayMode: shown, throwOnError: false });
});
