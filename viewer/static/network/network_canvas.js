/** Keeps the two canvases of the network view up to date: paths below, nodes above. */

import {acknowledgeFramesAfter, onFrame} from "../shared/link.js"
import {isMoving, motionLevel, onMotionChange} from "../shared/motion.js"
import {config} from "../shared/page_config.js"
import {nodeSelection, onNodeSelectionChange} from "../shared/selection.js"
import {colors, onThemeChange} from "../shared/theme.js"
import {WorkerCanvas} from "../shared/worker_canvas.js"
import {networkArcs, networkLayout, networkNodes, networkPaths, nodeNumbers, onNetworkChange, pathNumbers} from "./network_model.js"
import {paintNodes} from "./node_painter.js"
import {paintPaths} from "./path_painter.js"
import {tweenBetween} from "./tween.js"

/** @import {NumberArray} from "../shared/frame.js" */
/** @import {NodeScene} from "./node_painter.js" */
/** @import {PathScene} from "./path_painter.js" */
/** @import {Placement} from "./tween.js" */
/** @import {Viewport} from "./viewport.js" */
/** @import {NetworkChange} from "./network_model.js" */

/** An array of its own: a view is sent to a worker with all of the frame that it lies in.
 * @param {NumberArray} array */
const detached = (array) => array.slice()

export class NetworkCanvas {
  /** How often the paths have been drawn. */
  pathDrawings = 0
  /** @type {Set<NetworkChange>} */
  #changes = new Set()
  /** @type {Placement | null} */
  #placement = null

  /**
   * @param {HTMLCanvasElement} pathCanvas
   * @param {HTMLCanvasElement} nodeCanvas
   * @param {Viewport} viewport
   */
  constructor(pathCanvas, nodeCanvas, viewport) {
    this.viewport = viewport
    /** @type {WorkerCanvas<PathScene>} */
    this.paths = new WorkerCanvas(pathCanvas, new URL("./path_worker.js", import.meta.url), paintPaths)
    /** @type {WorkerCanvas<NodeScene>} */
    this.nodes = new WorkerCanvas(nodeCanvas, new URL("./node_worker.js", import.meta.url), paintNodes)
    acknowledgeFramesAfter(this.nodes)
    this.nodes.update({states: config.node_states, tween: null})
    this.#drawLayout()
    onNetworkChange((change) => this.#changes.add(change))
    onFrame(() => this.#drawChanges())
    onMotionChange(() => this.nodes.update({motion: this.#motion()}))
    onThemeChange(() => this.#drawAll({colors: colors()}))
    onNodeSelectionChange((now, before) => {
      this.nodes.update({...now})
      // With a new layout, the marks of its paths are drawn together with them: there may be more than are drawn so far.
      if (now.selected !== before.selected && !this.#changes.has("layout")) this.#updatePaths(this.#marks())
    })
  }

  /** Draw what is in view, which has changed. */
  drawView() {
    const {width, height, transform} = this.viewport
    this.#drawAll({width, height, transform, ratio: devicePixelRatio})
    if (this.#placement != null) this.#placement.transform = transform
  }

  /** @param {Partial<NodeScene> & Partial<PathScene>} changes of both scenes */
  #drawAll(changes) {
    this.nodes.update(changes)
    this.#updatePaths({...changes, whole: true})
  }

  /** Draw what the frame has brought; a new layout in one piece. */
  #drawChanges() {
    const changes = this.#changes
    this.#changes = new Set()
    if (changes.has("layout")) {
      this.#drawLayout()
      return
    }
    if (changes.has("numbers")) this.nodes.update(this.#numbers())
    if (changes.has("strokes")) this.#updatePaths({...this.#marks(), whole: false})
  }

  #drawLayout() {
    const {width, height, transform} = this.viewport
    const view = {width, height, transform, ratio: devicePixelRatio, colors: colors()}
    const {x, y, size, bar, phase, key} = networkNodes()
    const placement = {nodes: {x, y, size, key}, transform}
    const tween = this.#placement != null && motionLevel() > 0 ? tweenBetween(this.#placement, placement) : null
    this.#placement = placement
    this.nodes.update({
      ...view, ...this.#numbers(), ...nodeSelection(), motion: this.#motion(), tween,
      x: detached(x), y: detached(y), size: detached(size), bar: detached(bar), phase: detached(phase),
    })
    this.nodes.scene.tween = null // nodes that are drawn on another canvas do not start again
    const paths = networkPaths()
    const arcs = Object.fromEntries(Object.entries(networkArcs()).map(([name, column]) => [name, detached(column)]))
    this.#updatePaths({
      ...view, ...this.#marks(), whole: true, pathWidth: detached(paths.width),
      x: detached(paths.x), y: detached(paths.y), x1: detached(paths.x1), y1: detached(paths.y1),
      arcs: /** @type {PathScene["arcs"]} */ (/** @type {unknown} */ (arcs)),
    })
  }

  #motion() {
    return isMoving() ? motionLevel() : 0
  }

  #numbers() {
    const {amplitude, state, tone} = nodeNumbers()
    return {amplitude: detached(amplitude), state: detached(state), tone: detached(tone)}
  }

  /** Weight and mark of every path; those of the selected node begin at its height, not amid all that they stand for. */
  #marks() {
    const {selected} = nodeSelection()
    const {y} = networkNodes()
    const {first, last} = networkPaths()
    const {weight, staged, arcWeight} = pathNumbers()
    const mark = Uint8Array.from(staged, (isStaged, i) => first[i] <= selected && selected <= last[i] ? 1 : isStaged ? 2 : 0)
    const startY = selected >= 0 && selected < y.length ? y[selected] : null
    return {weight: detached(weight), arcWeight: detached(arcWeight), mark, startY, whole: true}
  }

  /**
   * New weights alone need not be shown as a whole.
   * @param {Partial<PathScene>} changes
   */
  #updatePaths(changes) {
    const {whole, ...others} = changes
    this.paths.update(whole ? {...others, whole, framesLeft: Infinity} : {...others, framesLeft: Infinity})
    if (networkLayout() != null) this.paths.whenDrawn(() => this.pathDrawings += 1)
  }
}
