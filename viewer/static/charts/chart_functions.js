/* global Bokeh */
/**
 * The functions of Bokeh's models in charts. Bokeh would compile them from text, which the policy of the page forbids:
 * the `code` of a `CustomJSTickFormatter` is a name in LABELS instead. This script is written into the page and is no
 * module, because it must run before Bokeh builds the charts.
 */
{
  /** @typedef {{start: number, end: number}} Range */

  /** @type {Record<string, (ticks: number[], ...values: any[]) => string[]>} */
  const LABELS = {numbers, durations}

  /**
   * As many digits as distinguish adjacent ticks; no exponent for short numbers.
   * @param {number[]} ticks
   * @param {{y_range: Range}} plot
   * @param {boolean} isLog
   */
  function numbers(ticks, plot, isLog) {
    const steps = ticks.slice(1).map((tick, i) => Math.abs(tick - ticks[i])).filter((step) => step > 0)
    const finest = steps.length > 0 ? Math.min(...steps) : 0
    const hidden = isLog ? crowdedTicks(ticks, plot.y_range) : new Set()
    return ticks.map((tick) => hidden.has(tick) ? "" : numberLabel(tick, finest))
  }

  /**
   * Ticks of a logarithmic axis crowd at the upper end of each decade: those without room have no text.
   * @param {number[]} ticks
   * @param {Range} range
   */
  function crowdedTicks(ticks, {start, end}) {
    const crowded = new Set()
    if (!(start > 0 && end > start)) return crowded
    let last = -Infinity
    for (const tick of ticks) {
      if (Math.log(tick) - last >= Math.log(end / start) / 9) last = Math.log(tick)
      else crowded.add(tick)
    }
    return crowded
  }

  /**
   * @param {number} tick
   * @param {number} finest difference between adjacent ticks; 0 if there is one tick
   */
  function numberLabel(tick, finest) {
    const size = Math.abs(tick)
    if (size === 0) return "0"
    const digits = Math.min(8, Math.max(3, Math.ceil(Math.log10(size / (finest || size))) + 1))
    if (size >= 1e-3 && size < 1e4) return String(Number(tick.toPrecision(digits)))
    return tick.toExponential(1).replace(".0e", "e").replace("-", "−")
  }

  /** Seconds as a person says them: 40 s, 12 min, 1:30 h. @param {number[]} ticks */
  function durations(ticks) {
    return ticks.map((tick) => {
      const total = Math.round(Math.abs(tick)), sign = tick < 0 ? "−" : ""
      const hours = Math.floor(total / 3600), minutes = Math.floor(total / 60) % 60, seconds = total % 60
      if (total === 0) return "0"
      if (hours > 0) return `${sign}${hours}${rest(minutes)} h`
      return minutes > 0 ? `${sign}${minutes}${rest(seconds)} min` : `${sign}${seconds} s`
    })
  }

  /** @param {number} n */
  const rest = (n) => n > 0 ? `:${String(n).padStart(2, "0")}` : ""

  const {CustomJS, CustomJSTickFormatter} = Bokeh.Models

  /** @this {{code: string, values: any[]}} */
  CustomJSTickFormatter.prototype.doFormat = function doFormat(/** @type {number[]} */ ticks) {
    return LABELS[this.code](ticks, ...this.values)
  }

  /** Report an event of a chart: chart_zoom.js receives it. */
  CustomJS.prototype.execute = function execute(/** @type {{origin: {name: string}, event_name: string}} */ event) {
    dispatchEvent(new CustomEvent("chart-event", {detail: {name: event.origin.name, event: event.event_name}}))
  }
}
