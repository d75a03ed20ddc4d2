// The theme puts the button that copies a block of code into a landmark of its own, without a name.
new MutationObserver(() => {
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])")) nav.setAttribute("role", "none")
}).observe(document.documentElement, {childList: true, subtree: true})
