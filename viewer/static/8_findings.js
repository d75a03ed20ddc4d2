/* What is to be noticed among the filters of the layer: a click selects them. */
(function () {
  "use strict"
  const page = window.revacnn
  const {byId, make, shown} = page
  const NOTHING = "no near duplicates, none dead"
  let key = ""

  const same = (group) => group.length == shown.picked.length && group.every((id) => shown.picked.includes(id))

  /** The group after that of the selected filter, from the last to the first again. */
  const next = (groups) => groups[(groups.findIndex((group) => group.includes(shown.picked[0])) + 1) % groups.length]

  function chip({kind, text, advice, groups}) {
    const at = groups.findIndex(same), several = groups.length > 1
    const words = several && at >= 0 ? `near duplicates: group ${at + 1} of ${groups.length} (${groups[at].length} filters)` : text
    return make("button", {
      class: "chip", "data-kind": kind, "aria-pressed": String(at >= 0),
      title: `${advice} Click to select ${several ? "one group after the other" : "them"}.`,
      onclick: () => shown.pick(next(groups)),
    }, words)
  }

  page.draw_findings = (list) => {
    const now = JSON.stringify([list, shown.picked])
    if (now == key) return
    key = now
    const focused = document.activeElement?.dataset?.kind
    if (list == null) return byId("findings").replaceChildren() // nothing is known yet
    byId("findings").replaceChildren(...(list.length ? list.map(chip) : [make("span", {class: "faint"}, NOTHING)]))
    if (focused) byId("findings").querySelector(`[data-kind="${focused}"]`)?.focus()
  }
})()
