/** Starts the page: the link to the server, and every part that draws what the server sends.
 *
 * `window.revacnn` is the page's one global, and only for tests and benchmarks:
 *
 *   ready              true once the network, its headers and its first numbers are painted
 *   frames, received   animation frames, and frames of the server that brought something new, so far
 *   age                seconds from publishing to painting of the newest numbers, by the clocks of both machines
 *   times              [published, read, sent, received, painted] of the newest snapshots, Unix times in ms
 *   parts              the newest data of each part of the page, as shared/parts.d.ts declares them:
 *                      `network_layout.layers[i].filters` is a width, `selection.coupled` the nodes that go together
 *   nodes(name)        the nodes of a layer: {node, index, last, state, x, y}, with x and y in px of the window, where the
 *                      pointer can click. A bar stands for the filters `index` to `last`. `states` numbers the states.
 *   value(name, node)  a number of a node: gradient, activation, weight_norm, amplitude, state
 *   network            the canvases of the network view: `nodes` and `paths` (see WorkerCanvas), `pathDrawings`
 *   selection          indices of the selected, hovered and coupled nodes
 *   motion             the value of the motion slider
 *   waitingForServer   true while the page waits for a server that has ended
 *   deliver(part, data)      draw as if the server had sent this
 *   sendCommand(name, args)  as a button does: viewer/tab/commands.py lists the commands
 *   views              the views of thumbnails by name: coefficients, gradients, activations, activation_gradients, maps
 *   filterSelection    what is selected in these views
 *
 * Stable elements: `#staging .row[data-plan=pending|planned|refused]` with `.title`, `.detail`, and `button.apply`, `button.discard`;
 * `#reply[data-state]` is sent, applied or refused, with `.outcome` and `.text`; `#records li[data-state]` are all requests,
 * newest first; `.column[data-layer="conv2"]` is the header of a layer with `button.less`, `button.more` and `button.menu`,
 * which opens `#layer-menu`; `button.insert` stands in the gap behind a layer; `.block-header[data-block="layer1.0"]` is the
 * header of a closed block with `button.fold`, which opens it; `.stage button.fold` closes an open one;
 * `#dot[data-kind]` and `#run-state` show what the run is doing; `#app[data-run]` is none before there is a run, connecting
 * until it replies, then attached; `#app[data-lost]` is true while the server does not respond; `#ended[data-kind]` says that,
 * and announces the end of a run, `#ended .next` shows the next one, `#runs` chooses; `select[data-chart="0"]` chooses the metric of the first chart, 1 and 2 the statistics of the charts by layer. */

import {startChartCards} from "./charts/chart_cards.js"
import {startChartMenu} from "./charts/chart_menu.js"
import {startLayerCurves} from "./charts/layer_curves.js"
import {startAddress} from "./controls/address.js"
import {startCharts} from "./controls/charts.js"
import {startEditList} from "./controls/edit_list.js"
import {startEmptyPage} from "./controls/empty_page.js"
import {startHeader} from "./controls/header.js"
import {startHints} from "./controls/hints.js"
import {startKeyboard} from "./controls/keyboard.js"
import {startRunControls} from "./controls/run_controls.js"
import {startSelectionPanel} from "./controls/selection_panel.js"
import {startStagingBar} from "./controls/staging_bar.js"
import {startTimeline} from "./controls/timeline.js"
import {startTrainPanel} from "./controls/train_panel.js"
import {startTrial} from "./controls/trial.js"
import {startDisablingRequests} from "./controls/unreceived_requests.js"
import {startClassPane} from "./layer/class_pane.js"
import {startFilterInspection} from "./layer/filter_inspection.js"
import {filterSelection} from "./layer/filter_selection.js"
import {startHistograms} from "./layer/histograms.js"
import {startLayerPanel, views} from "./layer/layer_panel.js"
import {startVerdicts} from "./layer/verdicts.js"
import {startImageEditor} from "./network/image_editor.js"
import {numberOfNode} from "./network/network_model.js"
import {networkCanvas, nodePositionsInWindow, startNetwork} from "./network/network_view.js"
import {startClassColors} from "./network/class_colors.js"
import {startPriceColors} from "./network/price_colors.js"
import {startAutomaticEdits} from "./network/automatic.js"
import {startGrowthGains} from "./network/growth.js"
import {startRankStatistics} from "./network/ranks.js"
import {documentReady, onConnectionLost} from "./shared/bokeh_document.js"
import {startDisabledButtons} from "./shared/disabled_buttons.js"
import {byId} from "./shared/dom.js"
import {animationFrameCount, startFrameRate} from "./shared/frame_rate.js"
import {acceptFrames, connect, deliverPart, reportView, latest, latestParts, receivedFrameCount, sendCommand} from "./shared/link.js"
import {motionLevel, startMotion} from "./shared/motion.js"
import {config} from "./shared/page_config.js"
import {newestAge, times} from "./shared/paint_times.js"
import {isWaitingForServer, startServerWatch, waitForServer} from "./shared/reconnect.js"
import {startScrolling} from "./shared/scrolling.js"
import {nodeSelection} from "./shared/selection.js"
import {startTheme, themeName} from "./shared/theme.js"
import {startLayerTable} from "./table/layer_table.js"

let isReady = false

const testHandle = {
  get ready() { return isReady },
  get frames() { return animationFrameCount() },
  get received() { return receivedFrameCount() },
  get age() { return newestAge() },
  get times() { return times },
  get parts() { return latestParts() },
  get network() { return networkCanvas() },
  get selection() { return nodeSelection() },
  get motion() { return motionLevel() },
  get waitingForServer() { return isWaitingForServer() },
  states: config.node_states,
  nodes: nodePositionsInWindow,
  value: numberOfNode,
  deliver: deliverPart,
  sendCommand,
  views,
  filterSelection,
}
Object.assign(window, {revacnn: testHandle})

/** Start all that draws; nothing has arrived yet. */
function startParts() {
  startDisabledButtons()
  startScrolling()
  startTheme()
  startMotion()
  startAddress()
  startHeader()
  startEmptyPage()
  startDisablingRequests()
  startHints()
  startRunControls()
  startTrainPanel()
  startTrial()
  startSelectionPanel()
  startLayerPanel()
  startVerdicts()
  startFilterInspection()
  startImageEditor()
  startHistograms()
  startClassPane()
  startLayerTable()
  startStagingBar()
  startEditList()
  startCharts()
  startChartMenu()
  startTimeline()
  startKeyboard()
  startFrameRate(() => isReady)
  startNetwork() // its workers load while Bokeh's document does
  startPriceColors()
  startClassColors()
  startAutomaticEdits()
  startGrowthGains()
  startRankStatistics()
}

/** Note when the network is painted for the first time. */
function noteReady() {
  if (isReady) return
  if (!latest("network_layout")?.layers?.length || receivedFrameCount() === 0) {
    requestAnimationFrame(noteReady)
    return
  }
  networkCanvas()?.nodes.whenDrawn(() => {
    isReady = true
    performance.mark("first picture")
  })
}

async function start() {
  startParts()
  const link = await documentReady()
  startLayerCurves()
  startChartCards()
  connect(link)
  reportView({
    theme: themeName(), visible: !document.hidden,
    width: byId("plot").clientWidth, height: byId("plot").clientHeight,
  })
  document.addEventListener("visibilitychange", () => reportView({visible: !document.hidden}))
  onConnectionLost(waitForServer)
  startServerWatch()
  acceptFrames()
  noteReady()
}

void start()
