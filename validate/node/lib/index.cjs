// The standardized validation for Node.
//
// The addon judges; here its answers become JavaScript's. All that crosses between the two is text
// and numbers: the text of an accepted token is JSON, that of a rejection begins with `!`.

'use strict'

const { open } = require('./addon.cjs')
const { CODES, Rejection } = require('./rejection.cjs')
const { read } = require('./options.cjs')

// The longest token that is judged; the addon refuses one that is a character longer, and need not
// be given the rest of it. The limit is that of docs/rejections.md.
const MAX_TOKEN_LENGTH = 16 * 1024

class Validator {
  #addon
  #seen

  constructor(options) {
    const { settings, onFinding = warn } = read(options)
    const opened = open(JSON.stringify(settings), (finding) => onFinding(JSON.parse(finding)))
    if (typeof opened === 'string') throw failed(opened, TypeError)
    this.#addon = opened
    this.#seen = new Seen(opened, settings.cache ?? 0)
  }

  async validate(token) {
    const answer = this.#addon.judge(cut(token))
    if (answer !== null) return this.#seen.accepted(answer)
    return accepted(await this.#later(this.#addon.validate, token))
  }

  validateSync(token, { now } = {}) {
    const answer =
      now === undefined
        ? this.#addon.judge(cut(token))
        : this.#addon.judgeAt(cut(token), seconds(now))
    if (answer !== null) return this.#seen.accepted(answer)
    throw new Rejection(
      'keys_unavailable',
      'a key set or a log must be read first; wait for `validate`, or for `ready`',
    )
  }

  async explain(token) {
    return accepted(await this.#later(this.#addon.explain, token))
  }

  async ready() {
    const answer = await this.#later(this.#addon.ready, '')
    if (answer !== '') throw failed(answer)
  }

  status() {
    return JSON.parse(this.#addon.status())
  }

  #later(how, token) {
    return new Promise((done) => how(cut(token), done))
  }
}

// The contents of tokens in the addon's cache. Parsing one costs more than all else of a hit, so it
// is done once. Every caller gets a copy of its own: what one changes, no other sees.
class Seen {
  #addon
  #limit
  #parsed = new Map()

  constructor(addon, limit) {
    this.#addon = addon
    this.#limit = limit
  }

  // An answer is a text, or the number of a content that the addon holds.
  accepted(answer) {
    if (typeof answer === 'string') return accepted(answer)
    const { claims, deep, kid, algorithm, log } = this.#content(answer)
    const copy = { ...claims }
    for (const name of deep) copy[name] = copied(claims[name])
    return { claims: copy, kid, algorithm, log }
  }

  // Numbers are never used twice. `deep` names the claims that are objects themselves.
  #content(number) {
    let content = this.#parsed.get(number)
    if (content === undefined) {
      content = JSON.parse(this.#addon.content(number))
      content.deep = Object.keys(content.claims).filter((name) => isObject(content.claims[name]))
      if (this.#parsed.size >= this.#limit) this.#parsed.delete(this.#parsed.keys().next().value)
      this.#parsed.set(number, content)
    }
    return content
  }
}

function accepted(answer) {
  if (!answer.startsWith('{')) throw failed(answer)
  return JSON.parse(answer)
}

// A rejection, or a fault in the addon's own words.
function failed(answer, Fault = Error) {
  if (!answer.startsWith('!')) return new Fault(answer)
  const { code, detail } = JSON.parse(answer.slice(1))
  return new Rejection(code, detail)
}

function warn({ claims, log }) {
  const detail = `the log says \`${log.verdict}\` of token \`${claims.jti}\` of \`${claims.iss}\``
  process.emitWarning(detail, { type: 'ChanceryWarning', code: log.verdict })
}

// Spreading defines members and never calls a setter, and what is defined is then assigned to: so a
// claim `__proto__` stays a claim.
function copied(value) {
  const copy = Array.isArray(value) ? value.slice() : { ...value }
  for (const name of Object.keys(copy)) {
    if (isObject(copy[name])) copy[name] = copied(copy[name])
  }
  return copy
}

function isObject(value) {
  return typeof value === 'object' && value !== null
}

function cut(token) {
  if (typeof token !== 'string') {
    throw new TypeError(`a token is a string, not ${token === null ? 'null' : typeof token}`)
  }
  return token.length <= MAX_TOKEN_LENGTH ? token : token.slice(0, MAX_TOKEN_LENGTH + 1)
}

function seconds(now) {
  if (!Number.isSafeInteger(now) || now < 0) {
    throw new TypeError('`now` is in whole seconds since 1970')
  }
  return now
}

module.exports = { CODES, Rejection, Validator }
