/* What stands still costs nothing: the browser composes every canvas that a script may draw on with every frame, two of
 * each chart, while nodes move beside them. So what a chart has painted is shown as a bitmap. */
(function () {
  "use strict"
  const page = window.revacnn
  const held = new WeakSet()

  /** Show a bitmap of what this plot has painted, in place of the canvases it paints on. */
  function hold({canvas_view, repainted}) {
    const {primary, overlays} = canvas_view, copy = document.createElement("canvas")
    const shown = copy.getContext("bitmaprenderer")
    copy.style.cssText = "position:absolute;left:0;top:0;width:100%;height:100%"
    const take = async () => {
      if (primary.el.width * primary.el.height == 0) return // in a part of the page that is hidden
      shown.transferFromImageBitmap(await createImageBitmap(primary.el))
      if (copy.previousSibling == primary.el) return
      primary.el.after(copy)
      primary.el.style.display = overlays.el.style.display = "none"
    }
    repainted.connect(take)
    take()
  }

  /** Do so with all plots that are there by now. */
  page.hold_plots = () => {
    for (const view of Bokeh.index.roots) {
      const is_plot = view.canvas_view?.overlays?.el != null && view.repainted?.connect != null
      if (!is_plot || held.has(view) || page.link.plain && view.model.name == "network") continue
      held.add(view)
      hold(view)
    }
  }
})()
