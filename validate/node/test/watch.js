// Validates tokens without a pause while keys rotate, or are taken back.
//
// usage: node watch.js ISSUER AUDIENCE SECONDS COMMAND [ARGUMENT...]
//
// COMMAND prints one token a line; `-` reads them from standard input. Each must be accepted at
// once, and again and again until it expires. `!UNIX_SECONDS TOKEN` is a token that must be refused
// from that time on, because its key was taken back; until then it may be judged either way. The
// JSON in CHANCERY_SETTINGS changes the validator's settings.
//
// Ends after SECONDS, or earlier when no more tokens come and none is left. Prints what was seen,
// and exits 1 if a verdict was wrong, or if no token came.

import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { Rejection, Validator } from 'chancery'

// Between two rounds of those that were seen before.
const PAUSE_MS = 50
// Good tokens that are validated again in a round: a sample, so that three bindings find room on
// two cores. Bad ones are few, and all are.
const SAMPLE = 20
// Who takes a key back says so a moment later; a refusal within this time before is no fault.
const DOUBT_MS = 2000
// A token is left alone this long before it expires: its last validation may come late.
const MARGIN_S = 2

const [issuer, audience, seconds, command, ...words] = process.argv.slice(2)
const changes = JSON.parse(process.env.CHANCERY_SETTINGS ?? '{}')
const findings = []
const onFinding = (finding) => findings.push(finding)
const validator = new Validator({ issuer, audience, onFinding, ...changes })
await validator.ready()

const good = new Set()
// From when on each must be refused, in seconds since 1970.
const bad = new Map()
const judging = []
const counts = { tokens: 0, accepted: 0, refused: 0, wrong: 0 }
const kids = new Set()

const part = (token, i) => JSON.parse(Buffer.from(token.split('.')[i], 'base64url'))
const now = () => Date.now() / 1000

async function judge(token) {
  const mustFail = bad.has(token) && bad.get(token) <= now()
  const verdict = await validator.validate(token).then(
    () => 'accepted',
    (error) => {
      if (!(error instanceof Rejection)) throw error
      return error.message
    },
  )
  const accepted = verdict === 'accepted'
  counts[accepted ? 'accepted' : 'refused']++
  if (!accepted && good.has(token)) await sleep(DOUBT_MS)
  if (!(accepted ? mustFail : good.has(token))) return
  counts.wrong++
  console.error(`${now()}: ${verdict}, which is wrong: ${token}`)
}

function hear(line) {
  counts.tokens++
  const [first, token = first] = line.split(' ')
  kids.add(part(token, 0).kid)
  if (first.startsWith('!')) {
    good.delete(token)
    bad.set(token, Number(first.slice(1)))
  } else {
    good.add(token)
  }
  return judge(token)
}

// Judges some of those that were seen before. What this comes to is waited for at the end.
function again() {
  for (const token of good) if (part(token, 1).exp < now() + MARGIN_S) good.delete(token)
  const all = [...good]
  const some = () => all[Math.floor(Math.random() * all.length)]
  const sample = Array.from({ length: Math.min(SAMPLE, all.length) }, some)
  for (const token of new Set([...sample, ...bad.keys()])) judging.push(judge(token))
}

const child =
  command === '-' ? null : spawn(command, words, { stdio: ['ignore', 'pipe', 'inherit'] })
const lines = createInterface({ input: child ? child.stdout : process.stdin })
let open = true
lines.on('line', (line) => line && judging.push(hear(line)))
lines.on('close', () => (open = false))
const until = now() + Number(seconds)
while (now() < until && (open || good.size > 0)) {
  again()
  await sleep(PAUSE_MS)
}
child?.kill()
lines.close()
again()
await Promise.all(judging)
console.log(
  `${counts.tokens} tokens under ${kids.size} keys: accepted ${counts.accepted} times, ` +
    `refused ${counts.refused} times, ${counts.wrong} of these wrong; ${findings.length} findings`,
)
console.log(`status: ${JSON.stringify(validator.status())}`)
process.exit(counts.wrong > 0 || counts.tokens === 0 ? 1 : 0)
