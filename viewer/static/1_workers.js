/* Drawings that go on in a worker of their own, so that nothing that happens in the page halts them, nor they the page.
 * Where no worker may start (the policy of a proxy can forbid it), the page draws them itself. */
(function () {
  "use strict"
  const page = window.revacnn

  /** The size that is told; a canvas of another one is empty after that. */
  function fit(canvas, ctx, {width, height, ratio}) {
    const wide = Math.round(width * ratio), high = Math.round(height * ratio)
    if (canvas.width != wide || canvas.height != high) {
      canvas.width = wide
      canvas.height = high
    }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0)
  }

  /** Draws what it is told, again and again while that moves; runs in the worker. `draw(ctx, q, now)` draws one frame of
   * all that was told so far, q, on a canvas of width, height (px) and ratio (device pixels per px) that shows the frame
   * before, and says whether the next would look different. Where what was told takes it several frames, it leaves in
   * q.left how many are left. `answer` is called with the number of what was told last, once that has been drawn, with
   * how many frames have been, and with the time (Unix, ms) at which this one was: the page may be too busy to hear of it
   * at once. */
  function drawing(draw, canvas, answer) {
    const ctx = canvas.getContext("2d"), q = {}, after = new MessageChannel()
    let told = 0, drawn = 0, answered = 0, frames = 0, running = false
    after.port1.onmessage = () => answer(answered = drawn, frames, Date.now())
    const frame = (now) => {
      running = false // should this fail, it is begun anew with what is told next
      fit(canvas, ctx, q)
      running = draw(ctx, q, now)
      if (!(q.left > 0)) drawn = told // more may be told before this frame is painted
      frames += 1
      if (answered != drawn || frames % 30 == 0) after.port2.postMessage(null) // after this frame is painted
      if (running) requestAnimationFrame(frame)
    }
    return (number, news) => {
      Object.assign(q, news)
      told = number
      if (running) return
      running = true
      requestAnimationFrame(frame)
    }
  }

  /** The functions, as they are written, are the worker's: they must not use anything of the page. */
  const program = (draw, parts, constants) => `
    "use strict"
    const {${Object.keys(constants)}} = ${JSON.stringify(constants)}
    ${[...parts, draw, fit, drawing].join("\n")}
    let tell
    onmessage = ({data}) => {
      if (data.canvas == null) tell(data.number, data.news)
      else tell = drawing(${draw.name}, data.canvas, (number, frames, at) => postMessage({number, frames, at}))
    }`

  /** Null where none may start. Some browsers say so only later, by an error. */
  function start_worker(program) {
    const url = URL.createObjectURL(new Blob([program], {type: "text/javascript"}))
    try {
      return new Worker(url)
    } catch (error) {
      console.info("Drawn by the page itself:", error.message)
      return null
    } finally {
      URL.revokeObjectURL(url)
    }
  }

  /** A canvas on which `draw` draws what it is told, in a worker where there is one. `parts` are the functions that it
   * uses, `constants` the values. */
  page.Drawing = class {
    constructor(canvas, draw, parts, constants) {
      this.number = this.drawn = this.frames = 0
      this.drawn_at = 0 // Unix time (ms) at which that was
      this.known = {} // all that was told so far
      this.canvas = canvas
      this._waiting = []
      const answer = (number, frames, at) => this._answer(number, frames, at)
      const worker = canvas.transferControlToOffscreen && start_worker(program(draw, parts, constants))
      if (worker == null) {
        this._send = drawing(draw, canvas, answer)
        return
      }
      this._worker = worker
      const offscreen = canvas.transferControlToOffscreen()
      worker.onmessage = ({data}) => answer(data.number, data.frames, data.at)
      worker.onerror = () => this._draw_here(draw, answer)
      worker.postMessage({canvas: offscreen}, [offscreen])
      this._send = (number, news) => worker.postMessage({number, news})
    }

    /** What the worker had to draw: its canvas cannot be had back, so on another one. */
    _draw_here(draw, answer) {
      this._worker.terminate()
      this._worker = null
      const canvas = this.canvas.cloneNode()
      this.canvas.replaceWith(canvas)
      this.canvas = canvas
      this._send = drawing(draw, canvas, answer)
      this._send(this.number, this.known)
    }

    tell(news) {
      Object.assign(this.known, news)
      this._send(this.number += 1, news)
    }

    /** Call this once all has been drawn that was told so far. */
    when_drawn(done) {
      if (this.drawn == this.number) done()
      else this._waiting.push([this.number, done])
    }

    remove() {
      this._worker?.terminate()
      this.canvas.remove()
    }

    _answer(number, frames, at) {
      if (number != this.drawn) this.drawn_at = at // not of a later frame, drawn because it moves
      this.drawn = number
      this.frames = frames
      const due = this._waiting.filter(([told]) => told <= number)
      this._waiting = this._waiting.filter(([told]) => told > number)
      for (const [, done] of due) done()
    }
  }
})()
