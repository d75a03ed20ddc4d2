/**
 * What the server sends of each part of the page, by the name of the part. The fields keep the
 * names of the wire; `viewer/components` writes them, `shared/frame.js` decodes them.
 */

import type {NumberArray, WireArray} from "./frame.js"

export type {WireArray}

/** One labeled value. `statistic`, "gradient" or "activation", gives it its color. */
export interface Fact {
  label: string
  value: string
  title?: string
  statistic?: string
  warn?: boolean
  /** Left out where room is short. */
  minor?: boolean
}

export interface RunChoice {
  id: string
  label: string
  current?: boolean
}

export interface HeaderData {
  run: "none" | "connecting" | "attached"
  kind: string
  status: string
  /** Connected to the server, but the server has no connection to the training. */
  unreachable: boolean
  /** Set by the page itself: what is wrong with the server. */
  server_problem?: string
  /** Whether the key of this page may edit and control the run, and the run still trains. */
  can_steer: boolean
  /** Why this page cannot steer the run now; "" if it can. */
  steering_refusal: string
  /** Why the run receives no requests at all now; "" if it does. */
  request_refusal: string
  /** The key of this page; the label is empty if it is that of the run's owner. */
  access: {label: string, note: string}
  motionless: boolean
  end_notice: string
  /** The newest alert of the run; "" if there is none, or if it was dismissed. */
  alert: string
  /** All alerts of the run, one per line. */
  alerts: string
  network_notice: string
  /** Why no layer can be shown; "" if there is one. */
  watch_refusal: string
  problem: string
  model: string
  /** What the run is called: its own name, or the class of its model. */
  name: string
  fields: Fact[]
  current_run: string
  runs: RunChoice[]
  next_run: RunChoice | null
}

export interface ParameterValue {
  name: string
  label: string
  /** The value in force. */
  text: string
  /** One whose request has no reply yet; empty if there is none. */
  requested: string
}

export interface ParameterGroup {
  optimizer: number
  group: number
  title: string
  values: ParameterValue[]
  note: string
}

/** How the training clips gradients. */
export interface Clipping {
  /** The clipping in force: "none", "norm 1". */
  text: string
  algorithm: string
  /** One whose request has no reply yet; empty if there is none. */
  requested: string
  note: string
  /** Why it cannot be set; empty if it can. */
  refusal: string
}

export interface ControlsData {
  available: boolean
  paused: boolean
  /** Why the run cannot be steered from this page; empty if it can. */
  refusal: string
  /** Name of the file that is being recorded; "" if none is. */
  recording: string
  groups: ParameterGroup[]
  /** null if the run does not say. */
  clipping: Clipping | null
}

export interface StagedRow {
  key: string
  verb: string
  title: string
  plan: "pending" | "planned" | "refused"
  /** Costs before and after the change, and what happens to the model's output. */
  detail: string
  /** What a change among several says instead of `detail` and `coupling`. */
  short: string
  coupling: string
  refused: string
  /** What has to be confirmed before Apply; empty if nothing has to be. */
  confirmation: string
  confirmed: boolean
  /** The staged clipping of gradients; null for all other changes. */
  clipping: {value: number, algorithm: string} | null
}

export interface StagingData {
  rows: StagedRow[]
  when?: string
  summary?: string
  /** Costs before and after all changes; empty until all are planned. */
  total?: string
  busy?: boolean
  can_apply?: boolean
  apply_hint?: string
  can_try?: boolean
  try_hint?: string
  /** On how many batches the changes are tried. */
  try_batches?: number
  /** Time and memory of a trial; empty until the run has replied. */
  try_cost?: string
  /** The same beside the button. */
  try_short_cost?: string
}

/** A trial of edits; only `stage` where there is none. */
export interface TrialData {
  stage: "none" | "recording" | "training" | "undecided" | "failed"
  id: string
  title: string
  text: string
  /** 0 to 1. */
  progress: number
  /** The loss of each batch, unedited and edited; empty without a result. */
  losses: number[]
  edited_losses: number[]
  refusal: string
}

/** Empty where there is no reply to show. */
export interface ReplyData {
  title?: string
  state?: string
  outcome?: string
  text?: string
}

export interface EditRecord {
  title: string
  state: string
  size_change: string
  text: string
  /** Whose key has requested it, and how certain that is; empty if it was this viewer. */
  who: string
  who_note: string
  /** When it happened, and the same with the date; empty if it is unknown. */
  time: string
  moment: string
  /** The loss and the main metric before and after the edit; empty for other requests. */
  effect: string
  effect_note: string
}

export interface ChangesData {
  records: EditRecord[]
  undo_disabled: string
  redo_disabled: string
}

export interface ChartChoice {
  options: [value: string, label: string][]
  current: string
}

export type XAxis = "batch" | "epoch" | "time"
export type Scale = "auto" | "linear" | "log"

/** The settings are by the name of a chart; `smoothing` is the share of a curve that is averaged. */
export interface ChartsData {
  charts?: ChartChoice[]
  /** Names of the charts that Bokeh has models of. */
  made?: string[]
  x_axis?: XAxis
  scales?: Record<string, Scale>
  smoothing?: Record<string, number>
  max_smoothing?: number
  compared_run?: string
  compared_name?: string
  other_runs?: RunChoice[]
}

/** A chart as a table, sent on request; empty before the first one. */
export interface ChartTableData {
  chart?: string
  request?: number
  csv?: string
}

/** `rows` is 0 before anything is recorded; then nothing else is there. */
export interface TimelineData {
  rows: number
  row: number
  recorded: number
  live: boolean
  playing: boolean
  text: string
  /** Which moment is shown instead of the newest; empty while live. */
  notice: string
  recording_note: string
  /** Where edits are on the slider, from 0 to 1. */
  edits: number[]
}

export interface SelectionPanelData {
  layer: string
  facts: string
  statistics_note: string
  filter: string
  values: Fact[]
  sort: string
  disabled: Record<string, string>
  tooltips: Record<string, string>
}

export interface FindingData {
  kind: string
  text: string
  advice: string
  groups: number[][]
}

/** What helps: a click stages it for the filters `ids`. */
export interface VerdictRemedy {
  option: string
  label: string
  ids: number[]
  note: string
  /** The norm at which to clip the gradient; 0 for all other remedies. */
  value: number
  /** Why it cannot be done in this training; "" if it can. */
  refusal: string
}

/** A verdict on a layer, or on its filters `ids`; `note` is its evidence and what helps. */
export interface VerdictRow {
  kind: string
  layer: number
  text: string
  note: string
  ids: number[]
  /** What can be done by one click. */
  remedies: VerdictRemedy[]
  /** Why it cannot be done now; "" if it can. */
  refusal: string
}

/** What the header of a layer says of the verdicts on it: `kind` is that of the one that is worth most to act on. */
export interface VerdictBadge {
  layer: number
  kind: string
  text: string
}

export interface VerdictsData {
  /** Those on the opened layer first. */
  rows: VerdictRow[]
  /** How many there are; of very many, the last are left out of `rows`. */
  total: number
  badges: VerdictBadge[]
  /** Why no newer verdicts are known; "" if they are. */
  problem: string
}

export interface LayerPanelData {
  pane: string
  method: string
  selected: number[]
  staged: number[]
  frozen?: number[]
  /** Ids of the dead filters. */
  dead?: number[]
  findings: FindingData[] | null
  knows_dead_filters?: boolean
  slices: string
  /** Which slice of volumes is shown, 0 to 1; null if the layer has none. */
  depth: number | null
  freeze_label?: string
  disabled?: Record<string, string>
  tooltips?: Record<string, string>
}

/** Thumbnails of the filters of a layer; the arrays have one row per filter. */
export interface ViewData {
  layer: string
  layer_index?: number
  title: string
  colormap: string
  status: string
  busy: boolean
  step: number
  revision: number
  slices?: string
  /** Whether `values` hold the activation of a chosen image instead of the batch's. */
  of_image?: boolean
  ids?: WireArray
  indices?: WireArray
  positions?: WireArray
  degenerate?: WireArray
  amplitude?: WireArray
  values?: WireArray
}

/** The newest numbers of the filter under the pointer; empty if it is on none. */
export interface HoveredFilterData {
  layer?: number
  filter?: number
  gradient?: number | null
  activation?: number | null
}

/** The prediction for the chosen image at one moment. */
export interface PredictionMoment {
  label: string
  name: string
  probability: number
  truth_probability: number | null
  /** Whether it is the true class; null if that is unknown. */
  correct: boolean | null
  details: string
}

export interface PredictionData {
  /** Why there is no prediction; then nothing else is there. */
  note: string
  truth?: string
  moments?: PredictionMoment[]
}

export interface InputImageData {
  title: string
  step: number
  waiting: boolean
  /** Why there is no image, or not the chosen one; empty if it is shown. */
  note: string
  prediction?: PredictionData
}

/** Histograms of one layer, one row per batch; without rows, `note` says why. */
export interface RidgesData {
  steps: WireArray
  /** The share of the values in each bin (rows, bins). */
  shares?: WireArray
  /** The share that a ridge of full height stands for. */
  peak?: number
  /** The bins reach from -limit to limit. */
  limit: number
  axis?: string
  facts: string
  note: string
}

export interface HistogramsData {
  layer?: string
  status?: string
  weights?: RidgesData
  gradients?: RidgesData
}

/** A matrix of filters (rows, in their order) and classes; without `values`, `status` says why there is none. */
export interface ClassesData {
  /** Index of the layer. */
  layer?: number
  measure?: string
  order?: string
  status?: string
  /** (rows, classes) */
  values?: WireArray
  /** The value of the strongest color. */
  limit?: number
  /** Index of the filter of each row. */
  filters?: WireArray
  /** 0 to 1, of each row. */
  selectivity?: WireArray
  conflict?: WireArray
  /** The rows of the selected filters. */
  selected?: number[]
  classes?: {index: number, name: string, images: string}[]
  facts?: string
  note?: string
  confusion?: ConfusionData | null
}

/** Which classes of the validation data the network takes for which; rows are the true classes. */
export interface ConfusionData {
  /** (classes, classes), of the images of a class. */
  shares?: WireArray
  /** Images. */
  counts?: WireArray
  names: string[]
  text: string
}

/** The class that the nodes are colored by, and the names of all classes. */
export interface ClassColorsData {
  shown: boolean
  /** -1: none */
  chosen: number
  classes: string[]
  text: string
}

/** Edges in pixels of the image: top, left, bottom, right. */
export type Box = [number, number, number, number]
/** Height and width. */
export type Size = [number, number]

export interface TopImageData {
  /** One tile; of a signal, levels (channels, values). */
  pixels: WireArray
  box: Box
  /** Which part of its image it is, in words. */
  place: string
  response: string
  age: string
}

/** The image that a filter responds to most, as far as gradient ascent has found it. */
export interface PreferredData {
  pixels: WireArray
  box: Box
  response: string
  /** Of the steps after which the image hardly changes. */
  share: number
  steps: number
}

export interface InspectionData {
  preferred?: PreferredData | null
  preferred_note?: string
  status: string
  busy: boolean
  crop_note?: string
  receptive_field?: Size
  no_top_images?: string
  top_images?: TopImageData[]
  title?: string
  image?: WireArray
  box?: Box
  size?: Size
  crop?: WireArray
  response?: string
  /** The filter's map of a signal, levels (1, values). */
  response_map?: WireArray | null
  inactive?: boolean
  deconvolution?: WireArray
  guided?: WireArray
  refused?: string
}

/** The header of a layer in the network view; places in px of the layout. */
export interface LayerHeader {
  index: number
  name: string
  label: string
  filters: number
  kernel: string
  center: number
  top: number
  header_y: number | null
  /** Whether the layer stands above or below others, in parallel branches. */
  lane: boolean
  /** Whether all filters are frozen. */
  frozen: boolean
  /** What the learning rate of its optimizer is multiplied by. */
  rate_factor: number
  refused: string
  /** Row of the closed block in which it is drawn; -1 if it has its own column. */
  block: number
}

/** A closed block of the network view; places in px of the layout. */
export interface BlockHeader {
  path: string
  /** Whether it is one module, which can be removed, not a range of a list's. */
  is_module: boolean
  label: string
  /** Index of its first layer. */
  first: number
  layers: number
  filters: number
  left: number
  right: number
  top: number
  bottom: number
  header_y: number | null
  lane: boolean
}

export interface StageData {
  name: string
  path: string
  /** Whether it is one module, which can be removed, not a range of a list's. */
  is_module: boolean
  left: number
  right: number
  layer: number
  /** Path of the block that it can be closed to; empty if there is none. */
  block: string
  top: number
  /** Number of frames around it. */
  level: number
}

export interface NetworkLayoutData {
  width: number
  height: number
  density: "roomy" | "normal" | "crowded"
  layers: LayerHeader[]
  blocks: BlockHeader[]
  stages: StageData[]
  stage_top: number
  /** Where headers of what stands beside the columns are. */
  header_y: number
  /** Where the space of the columns ends. */
  columns_right: number
}

/** One row per node: a dot, or a bar that stands for the filters `first` to `last`. */
export interface NodesData {
  x: NumberArray
  y: NumberArray
  size: NumberArray
  bar: NumberArray
  phase: NumberArray
  key: NumberArray
  layer: NumberArray
  first: NumberArray
  last: NumberArray
}

/** One row per path; `first` to `last` are the nodes that it stands for. */
export interface PathsData {
  x: NumberArray
  y: NumberArray
  x1: NumberArray
  y1: NumberArray
  /** Of the stroke at full weight, px. */
  width: NumberArray
  first: NumberArray
  last: NumberArray
}

/** Connections that skip layers: from (x0, y0), down at x = a, along y = level, up at x = b, to (x1, y1). */
export interface ArcsData {
  x0: NumberArray
  y0: NumberArray
  a: NumberArray
  level: NumberArray
  b: NumberArray
  x1: NumberArray
  y1: NumberArray
  width: NumberArray
  /** 1 where its reader adds it. */
  is_sum: NumberArray
}

/** One row per node. */
export interface NumbersData {
  state?: WireArray
  amplitude?: WireArray
  /** 0 to 1, the color; left out where it is the amplitude. */
  tone?: WireArray
  /** What the tone stands for: the change of the loss, or standard deviations above the mean; NaN is unknown. */
  colored_by?: WireArray
  gradient?: WireArray
  activation?: WireArray
  weight_norm?: WireArray
}

/** Whether the nodes are colored by price; `text` says how well prices are known. */
export interface PricesData {
  shown: boolean
  text: string
  /** Why the cheapest filters cannot be removed now; "" if they can. */
  refusal: string
}

export interface GrowthRow {
  layer: number
  text: string
  title: string
  /** 0 to 1, relative to the largest gain. */
  heat: number
}

/** Where one more filter would lower the loss most. */
export interface GrowthData {
  rows: GrowthRow[]
  text: string
  pending: boolean
}

/** What the run does by itself. */
export interface AutomaticData {
  shown: boolean
  stage: "none" | "running" | "paused" | "ended"
  text: string
  /** Of the pruning, 0 to 1. */
  progress: number
  revocable: boolean
  policy: string
  /** How many remedies the run proposes. */
  proposals: number
  refusal: string
}

/** A training with several processes: what its values are means of, and a row per rank. */
export interface RanksData {
  shown: boolean
  open: boolean
  text: string
  head: string[]
  rows: {cells: string[], note: string}[]
}

/** One row per path, and of `arc_weight` per arc. */
export interface StrokesData {
  weight?: WireArray
  arc_weight?: WireArray
  staged?: WireArray
}

/** Empty before there is a network. `node` is -1 where nothing is selected; then there is no `index`. */
export interface SelectionData {
  node?: number
  layer?: number
  index?: number
  also?: number[]
  text?: string
  coupled?: number[]
  coupling_text?: string
}

/** What the tooltip of a channel of the input says; `weight` is its share of the largest sum. */
export interface ChannelRow {
  name: string
  text: string
  weight: number
}

/** A class with the probability that the network gives it. `true` is null where the truth is unknown. */
export interface OutputRow {
  name: string
  index: number
  probability: number
  predicted: boolean
  true: boolean | null
}

/** What stands beside the columns, with places in px of the layout. Empty before there is a network. */
export interface EndsData {
  header_y: number
  /** Where the space of the input begins, and the width of this space and of that of the outputs. */
  input_x: number
  left: number
  right: number
  /** Whether there is room for words behind a probability. */
  has_words: boolean
  /** Edges of the picture: left, top, right, bottom. */
  picture: [number, number, number, number]
  /** Those of a generated image, which the readers of the input read as well. */
  generated: [number, number, number, number] | null
  /** (channels, values) between -1 and 1, of an input that is no image. */
  signal: WireArray
  input: {
    title: string, subtitle: string, note: string, choosable: boolean, source?: string, slice?: string
    /** How a picture was prepared. */
    image_note?: string
    /** Into how many rows and columns of tiles the image is divided for painting; 0 where it is no image. */
    grid?: [number, number]
    /** px: the longest side that a picture for this network should have. */
    picture_side?: number
    /** What is under the paint, whether the picture shows it yet, and why the training did not make an image. */
    paint: {origin: string, is_painted: boolean, is_waiting: boolean, refused: string}
  }
  channel_x: number
  channel_y: number[]
  channels: ChannelRow[]
  output: {title: string, subtitle: string, note: string, more: string, shapes?: string[], details?: string, of_maps?: boolean, loss: {label: string, value: string, title: string}[]}
  output_x: number
  output_y: number[]
  rows: OutputRow[]
}

export interface FilterlessModule {
  name: string
  type: string
  /** Shape before and after it. */
  before: string
  after: string
}

/** A mark of modules between two layers, with places in px of the layout. */
export interface MarkRow {
  x: number
  top: number
  bottom: number
  label: string
  modules: FilterlessModule[]
}

export interface MarksData {
  shown?: boolean
  /** Whether the modules are known. */
  available?: boolean
  rows?: MarkRow[]
}

/** One row of `value` per curve. */
export interface LayerCurvesData {
  step?: WireArray
  value?: WireArray
  color: string[]
  layer: string[]
  width: number[]
  /** Of the run that is laid over the shown one, if there is one. */
  compared?: Omit<LayerCurvesData, "compared">
}

export interface LayerTableRow {
  name: string
  type: string
  inputs: number
  filters: number
  /** Height and width. */
  kernel: number[]
  stride: number[]
  groups: number
  /** Height and width; empty if unknown. */
  /** Lengths of the output but filters; null if unknown. */
  output: number[] | null
  parameters: number
  /** Multiply-accumulates of one sample; 0 if unknown. */
  macs: number
  /** How many of the filters are frozen. */
  frozen: number
}

/** Empty until the table is opened. */
export interface LayerTableData {
  layers?: LayerTableRow[]
}

/** One value per layer. */
export interface LayerStatisticsData {
  gradient?: NumberArray
  activation?: NumberArray
  update_ratio?: NumberArray
  dead?: NumberArray
}

/** The parameters of the page's address; those that are "" are left out. */
export type AddressData = Record<string, string>

export interface Parts {
  address: AddressData
  layer_table: LayerTableData
  layer_statistics: LayerStatisticsData
  network_layout: NetworkLayoutData
  ends: EndsData
  marks: MarksData
  nodes: NodesData
  paths: PathsData
  arcs: ArcsData
  numbers: NumbersData
  prices: PricesData
  class_colors: ClassColorsData
  automatic: AutomaticData
  growth: GrowthData
  ranks: RanksData
  verdicts: VerdictsData
  strokes: StrokesData
  selection: SelectionData
  "curves-layers_0": LayerCurvesData
  "curves-layers_1": LayerCurvesData
  header: HeaderData
  controls: ControlsData
  staging: StagingData
  trial: TrialData
  reply: ReplyData
  changes: ChangesData
  charts: ChartsData
  chart_table: ChartTableData
  timeline: TimelineData
  selection_panel: SelectionPanelData
  layer_panel: LayerPanelData
  hovered_filter: HoveredFilterData
  "view-coefficients": ViewData
  "view-gradients": ViewData
  "view-activations": ViewData
  "view-activation_gradients": ViewData
  input: InputImageData
  inspection: InspectionData
  histograms: HistogramsData
  classes: ClassesData
}
